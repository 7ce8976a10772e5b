# `make demo` and `make test` in a container:
#   docker build --tag pplr .                            # CPU
#   docker build --tag pplr --build-arg TORCH=cu126 .    # CUDA 12; then `docker run --gpus all`
FROM python:3.12-slim-bookworm

# A folder of https://download.pytorch.org/whl. CUDA's libraries come with torch's wheels; the
# machine itself needs the driver and NVIDIA's container toolkit.
ARG TORCH=cpu

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 pplr \
    && install --directory --owner=pplr --group=pplr /pplr-lightning

USER pplr
WORKDIR /pplr-lightning
ENV PIP_NO_CACHE_DIR=1

# Installed first, torch is left as it is by what comes after, and kept when the sources change.
# hadolint ignore=DL3013
RUN python -m venv .venv \
    && .venv/bin/python -m pip install torch torchvision \
        --index-url "https://download.pytorch.org/whl/${TORCH}"

COPY --chown=pplr:pplr . .
RUN make install

ENV PATH=/pplr-lightning/.venv/bin:$PATH
CMD ["make", "demo"]
