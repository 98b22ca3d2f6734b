# Of requirements with hashes, all entries but torch, which is installed already, and its CUDA parts.
/^[a-z]/ { wanted = !/^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z0-9-]*)==/ }
wanted
