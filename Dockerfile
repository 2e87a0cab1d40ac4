# GPUs: docker build -t openrlhf-prm . && docker run --gpus all --shm-size 16g -it openrlhf-prm openrlhf-prm doctor
# BUILD=--without-flash-attn saves the compilation of flash-attn.
# KubeRay's probes call wget.
# The toolkit's version is the one that PyTorch is built for: DeepSpeed compiles its Adam with no other.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04
ARG BUILD=
ARG MAX_JOBS=4
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git python3-dev python3-venv wget \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /opt/openrlhf-prm
COPY . .
RUN MAX_JOBS=$MAX_JOBS scripts/install_gpu.sh $BUILD && python -m uv cache clean
