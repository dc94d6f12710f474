# One image for the controller (`python -m seiops.controller`), the sidecar (`seictl serve`) and the command line.
#
#   docker build -t registry.example/seiops:0.1.0 .

FROM rust:1.90-slim-bookworm AS kernel
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements-dev.txt ./
# The tool that builds the wheel, pinned with its hashes as everything else is.
RUN python3 -m venv /tools \
 && sed -n '/^maturin==/,/[0-9a-f]$/p' requirements-dev.txt > maturin.txt \
 && /tools/bin/pip install --no-cache-dir --require-hashes --no-deps -r maturin.txt
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE ./
COPY native native
COPY bench/storegen bench/storegen
COPY src src
RUN /tools/bin/maturin build --release --locked --out /wheels

FROM python:3.13-slim-bookworm AS packages
WORKDIR /build
COPY requirements.txt ./
RUN python -m venv /opt/seiops \
 && /opt/seiops/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.txt
COPY --from=kernel /wheels /wheels
# The root file system is read-only where this runs: bytecode is made now or never.
RUN /opt/seiops/bin/pip install --no-cache-dir --no-deps /wheels/*.whl \
 && /opt/seiops/bin/python -m compileall -q /opt/seiops/lib

FROM python:3.13-slim-bookworm
COPY --from=packages /opt/seiops /opt/seiops
ENV PATH=/opt/seiops/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
ENTRYPOINT ["seiops"]
