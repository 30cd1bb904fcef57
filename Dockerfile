# The page and its API in a container, from a staged Space (python -m lobbycard space --model DIR --out space):
#
#     docker build -t lobbycard space
#     docker run --rm -p 7860:7860 lobbycard
#
# Another model without building anew: -v "$PWD/models/other:/app/model:ro"
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# 1000 is also the user that a Docker Space runs as
RUN useradd --create-home --uid 1000 user
WORKDIR /app

COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY LICENSE app_gradio.py ./
COPY lobbycard ./lobbycard
COPY model ./model
COPY examples* ./examples

USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    PYTHONUNBUFFERED=1
EXPOSE 7860
# 503 until the network has answered once
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/api/v1/health', timeout=4)"]
# Its own process, not a shell's: SIGTERM reaches it, and running requests are finished
CMD ["python", "app_gradio.py"]
