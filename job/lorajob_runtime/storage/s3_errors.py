"""Turns the errors of boto3 and of S3 servers into errors of ours, in words that hold no secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from lorajob_runtime.contract.errors import ConfigError, CredentialsError, LorajobError, StorageError

REFUSED = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthFailure",
        "ExpiredToken",
        "Forbidden",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "401",
        "403",
    }
)
_WRONG_PLACE = ("InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed")
_NOT_OF_S3 = ("400", "405", "501", "unknown")
"""Answers without the name of an error, which every S3 server gives."""
NO_SUCH_KEY = ("NoSuchKey", "404")


@contextmanager
def translated(uri: str, bucket: str, server: str, key: str | None = None) -> Iterator[None]:
    """Turns boto3's errors into ours. No message of the server is repeated: it may echo what was sent.

    `key` is the file that is asked for, where one is.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _of_answer(error, uri, bucket, server, key) from error
    except (Boto3Error, BotoCoreError) as error:
        cause = _root_cause(error)
        if isinstance(cause, ClientError):
            raise _of_answer(cause, uri, bucket, server, key) from error
        raise _of_client(cause, uri, bucket, server) from error


def _of_client(error: BaseException, uri: str, bucket: str, server: str) -> LorajobError:
    """For what boto3 found out without an answer of the server."""
    from botocore import exceptions

    place = f"{uri} on {server}"
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return CredentialsError(f"no S3 key for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
    if isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigError(f"the certificate of {server} is not trusted: set AWS_CA_BUNDLE")
    if isinstance(error, exceptions.ParamValidationError):
        return ConfigError(f"s3://{bucket} cannot be used: the name of the bucket or key is not valid")
    if "Invalid header value" in str(error):
        return CredentialsError(
            f"the S3 key for {place} has a character in it that no key has, such as a line break",
            hint="correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the Secret with them",
        )
    if isinstance(error, exceptions.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        return ConfigError(f"{server} does not speak TLS: AWS_ENDPOINT_URL_S3 must begin with http:// for it")
    return StorageError(f"{place} does not answer ({_reason(error)})")


def _of_answer(error: BaseException, uri: str, bucket: str, server: str, key: str | None) -> LorajobError:
    code = code_of(error)
    if key is not None and code in NO_SUCH_KEY:
        return StorageError(f"{uri}/{key} is not there")
    if code in ("NoSuchBucket", "404"):
        message = f"the bucket {bucket!r} does not exist on {server}"
        return ConfigError(message, hint="create it, or correct storage.uri")
    if code in REFUSED:
        return CredentialsError(f"{server} refuses access to {uri} ({code})")
    if code in _WRONG_PLACE:
        return ConfigError(f"{uri} cannot be used on {server} ({code}): check the name and AWS_REGION")
    doubt = ": is it the address of an S3 server?" if code in _NOT_OF_S3 else ""
    return StorageError(f"{uri} on {server} failed ({code}){doubt}")


def _root_cause(error: BaseException) -> BaseException:
    """upload_file hides the server's answer in an error of its own."""
    from boto3.exceptions import Boto3Error

    inner = error.__cause__ or error.__context__
    return inner if isinstance(error, Boto3Error) and inner is not None else error


def code_of(error: BaseException) -> str:
    """The code in an S3 server's answer, such as NoSuchKey; `unknown` for an answer without one."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", "unknown"))


def _reason(error: BaseException) -> str:
    """The system's word for it, such as `Connection refused`: an address may hold a password."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "kwargs", {}).get("error") if hasattr(seen, "kwargs") else None
        seen = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
    return type(error).__name__


def server_name(endpoint: str | None) -> str:
    """host:port of an endpoint; a user and password in it are left out."""
    if endpoint is None:
        return "Amazon S3"
    return urlsplit(endpoint).netloc.rpartition("@")[2] or endpoint.rpartition("@")[2]
