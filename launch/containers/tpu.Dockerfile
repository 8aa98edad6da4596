# A run on TPU hosts, for --gke.image; its working directory is a checkout, as the workloads expect:
#   docker build -f launch/containers/tpu.Dockerfile -t REGISTRY/blt_jax:tpu . && docker push REGISTRY/blt_jax:tpu
FROM python:3.12-slim-bookworm
WORKDIR /blt_jax
COPY pyproject.toml setup.py README.md LICENSE ./
COPY blt_jax blt_jax
COPY launch launch
COPY experiments experiments
RUN pip install --no-cache-dir --editable '.[tpu,gcs]'
