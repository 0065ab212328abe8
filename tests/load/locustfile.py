"""A client of the completion route that asks again and again, and waits as long as a 429 tells it to."""

import os

import gevent
from locust import FastHttpUser, task

BODY = {"model": os.environ.get("VITER_MODEL", ""), "prompt": "Cards:", "max_tokens": 16, "temperature": 0}


class Client(FastHttpUser):
    def on_start(self) -> None:
        self.headers = {"Authorization": f"Bearer {os.environ['VITER_TOKEN']}"}

    @task
    def complete(self) -> None:
        with self.client.post("/v1/completions", json=BODY, headers=self.headers, catch_response=True) as answer:
            if answer.status_code == 429:
                answer.request_meta["name"] = "refused"
                answer.success()
                gevent.sleep(float(answer.headers["Retry-After"]))
            elif answer.status_code == 200:
                answer.request_meta["name"] = "accepted"
            else:
                answer.request_meta["name"] = f"status {answer.status_code}"
                answer.failure(answer.text)
