# A run on GPUs, where a cluster runs containers; CUDA comes with jax's wheels, the driver from the host:
#   docker build -f launch/containers/gpu.Dockerfile -t REGISTRY/blt_jax:gpu .
FROM python:3.12-slim-bookworm
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /blt_jax
COPY pyproject.toml setup.py README.md LICENSE ./
COPY blt_jax blt_jax
COPY launch launch
COPY experiments experiments
RUN pip install --no-cache-dir --editable '.[gpu]'
