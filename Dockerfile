# A CPU image: docker build -t recsys . && docker run --rm recsys doctor
FROM python:3.11-slim AS build
WORKDIR /srv/recsys
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY conf conf
COPY recsys recsys
# An index with CPU builds of torch keeps the image small: --build-arg RECSYS_TORCH_INDEX_URL=...
ARG RECSYS_TORCH_INDEX_URL=
RUN RECSYS_TORCH_INDEX_URL="$RECSYS_TORCH_INDEX_URL" python -m recsys.install --venv /srv/recsys/.venv

FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home recsys
COPY --from=build /srv/recsys /srv/recsys
ENV PATH="/srv/recsys/.venv/bin:$PATH"
USER recsys
WORKDIR /home/recsys
HEALTHCHECK --interval=5m --timeout=60s CMD ["recsys", "doctor"]
ENTRYPOINT ["recsys"]
CMD ["--help"]
