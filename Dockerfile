# docker build -t sanet . && docker run --rm -p 8000:8000 -e SANET_TOKEN=… sanet
# Another model: docker run … -v "$PWD/runs/leaf/model:/model:ro" sanet /model
FROM python:3.11-slim
WORKDIR /app
# All by the hashes of the lock; of what only the extra `serve` needs, its lines in the lock of everything.
COPY requirements.txt requirements-dev.txt ./
RUN awk '/^[^ ]/ { take = /^(fastapi|starlette|opentelemetry-api|pydantic|pydantic-core|annotated-doc|annotated-types|typing-inspection|uvicorn)==/ } take' \
    requirements-dev.txt >> requirements.txt
RUN python -m pip install --no-cache-dir --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation .
RUN useradd --create-home sanet
USER sanet
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
# Open to what reaches the container, which is why it needs a token.
ENTRYPOINT ["sanet", "serve", "--host", "0.0.0.0"]
CMD ["streets"]
