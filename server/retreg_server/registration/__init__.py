"""The engine room: what registers two images, and how the result is judged.

Read model.py first, then fundus/auto.py or volume/auto.py.
"""
