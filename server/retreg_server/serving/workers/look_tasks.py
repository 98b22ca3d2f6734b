"""What the process for files does for the page that shows a result."""

from __future__ import annotations

from collections.abc import Callable

from retreg import wire
from retreg.hand_edit import edited
from retreg_server.reporting.look import edit_of, page_message, shown_image
from retreg_server.serving.workers.messages import Message, SharedBuffer, SharedImage


def page(request: Message) -> Message:
    """All that the page is told of a result, as JSON."""
    result = wire.decode_result(wire.loads(bytes(request.buffers[0].view)))
    message = page_message(result, wire.decode_grid(request.head["grid"]))
    return Message({}, (SharedBuffer.of(wire.dumps(message)),))


def shown(request: Message) -> Message:
    """An image in 8 bits."""
    image = SharedImage.received(request.head["header"], request.buffers[0]).image
    small = SharedImage.of(shown_image(image))
    return Message({"header": small.header}, (small.voxels,))


def refitted(request: Message) -> Message:
    """The result that edited keypoints lead to, as JSON; the head has its verdict."""
    head = request.head
    result = wire.decode_result(wire.loads(bytes(request.buffers[0].view)))
    moving = None if head["moving_grid"] is None else wire.decode_grid(head["moving_grid"])
    grid = wire.decode_grid(head["grid"])
    edit = edit_of(wire.loads(bytes(request.buffers[1].view)))
    after = edited(result, edit, grid, moving, head["origin"])
    verdict = {"verdict": after.quality.verdict, "reason": after.quality.reason}
    return Message(verdict, (SharedBuffer.of(wire.dumps(wire.encode_result(after))),))


TASKS: dict[str, Callable[[Message], Message]] = {
    "page": page,
    "shown": shown,
    "refitted": refitted,
}
