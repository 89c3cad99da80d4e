"""The context object that a handler gets."""

import json
import os
import time

from lull_errors import RuntimeFailure


class LambdaContext:
    def __init__(self, headers):
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        client = _parse(headers.get("lambda-runtime-client-context"), "Client Context")
        self.client_context = ClientContext(client) if client is not None else None
        self.identity = CognitoIdentity(_parse(headers.get("lambda-runtime-cognito-identity"), "Cognito Identity") or {})
        self._deadline = int(headers.get("lambda-runtime-deadline-ms", "0"))

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline - int(time.time() * 1000))

    def log(self, message):
        print(message, end="", flush=True)

    def __repr__(self):
        return f"LambdaContext({_shown(self)})"


class CognitoIdentity:
    def __init__(self, fields):
        self.cognito_identity_id = fields.get("cognitoIdentityId")
        self.cognito_identity_pool_id = fields.get("cognitoIdentityPoolId")

    def __repr__(self):
        return f"CognitoIdentity({_shown(self)})"


class ClientContext:
    def __init__(self, fields):
        self.custom = fields.get("custom")
        self.env = fields.get("env")
        client = fields.get("client")
        self.client = Client(client) if client is not None else None

    def __repr__(self):
        return f"ClientContext({_shown(self)})"


class Client:
    def __init__(self, fields):
        for name in ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name"):
            setattr(self, name, fields.get(name))

    def __repr__(self):
        return f"Client({_shown(self)})"


def _shown(thing):
    return "[" + ",".join(f"{k}={v}" for k, v in vars(thing).items() if not k.startswith("_")) + "]"


def _parse(text, name):
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise RuntimeFailure("LambdaContextUnmarshalError", f"Unable to parse {name} JSON: {error}") from error
