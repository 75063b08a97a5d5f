# Two images from one file, for CPUs and for NVIDIA GPUs:
#   docker build --target cpu -t recsys:cpu . && docker run --rm recsys:cpu doctor
#   docker build --target cuda -t recsys:cuda . && docker run --rm --gpus all recsys:cuda doctor
# Layers in the order in which they change, rarest first: the system, the packages, recsys.
ARG PYTHON=3.11.14-slim-bookworm

# What every stage stands on.
FROM python:${PYTHON} AS system
ENV PIP_NO_CACHE_DIR=1
WORKDIR /srv/recsys

# The installer and the locks alone: another change to recsys does not install the packages anew.
FROM system AS installer
COPY requirements requirements
COPY recsys/__init__.py recsys/install.py recsys/
COPY recsys/core/__init__.py recsys/core/errors.py recsys/core/installation.py recsys/core/paths.py recsys/core/secrets.py recsys/core/threads.py recsys/core/version.py recsys/core/
COPY recsys/cli/__init__.py recsys/cli/doctor.py recsys/cli/
RUN ln -s ../requirements recsys/requirements
# An index with CPU builds of torch keeps the CPU image small: --build-arg RECSYS_TORCH_INDEX_URL=…
ARG RECSYS_TORCH_INDEX_URL=

FROM installer AS packages-cpu
RUN RECSYS_TORCH_INDEX_URL="${RECSYS_TORCH_INDEX_URL}" \
    python -m recsys.install --venv /srv/recsys/.venv

FROM installer AS packages-cuda
RUN RECSYS_TORCH_INDEX_URL="${RECSYS_TORCH_INDEX_URL}" \
    python -m recsys.install --venv /srv/recsys/.venv --cuda

FROM system AS wheel
COPY requirements requirements
RUN python -m pip install "$(grep '^setuptools==' requirements/torch-2.13.txt)"
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY conf conf
COPY recsys recsys
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /srv/wheels .

FROM system AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1=12.2.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 recsys
ENV PATH="/srv/recsys/.venv/bin:${PATH}"
WORKDIR /home/recsys
HEALTHCHECK --interval=1m --timeout=10s CMD ["recsys", "health"]
ENTRYPOINT ["recsys"]
CMD ["--help"]

FROM runtime AS cuda
# Triton compiles its launchers where they run.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc=4:12.2.* libc6-dev=2.36-* \
    && rm -rf /var/lib/apt/lists/*
# What NVIDIA's container runtime is to give where nobody names devices.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-cuda /srv/recsys/.venv /srv/recsys/.venv
COPY --from=wheel /srv/wheels /srv/wheels
RUN /srv/recsys/.venv/bin/python -m pip install --no-deps --no-index /srv/wheels/*.whl
USER 10001

FROM runtime AS cpu
COPY --from=packages-cpu /srv/recsys/.venv /srv/recsys/.venv
COPY --from=wheel /srv/wheels /srv/wheels
RUN /srv/recsys/.venv/bin/python -m pip install --no-deps --no-index /srv/wheels/*.whl
USER 10001
