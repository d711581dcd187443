"""A repository of the hub: its visibility, an upload, and errors in plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import HarnessError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

_LOGIN = "hf auth login, or set HF_TOKEN; a token is made at https://huggingface.co/settings/tokens"
_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"


class Commit(NamedTuple):
    """Commit of an upload.

    Attributes:
        url: its address.
        left_there: files of the repository that it did not write.
    """

    url: str
    left_there: list[str]


class HubRepository:
    """A repository with a model.

    Args:
        name: its name, as ACCOUNT/NAME.
        private: create it for its owner alone; one that exists must be private then.

    Raises:
        HarnessError: that is not such a name.
    """

    def __init__(self, name: str, *, private: bool) -> None:
        if not re.fullmatch(f"{_PART}/{_PART}", name) or re.search(r"--|\.\.", name):
            raise HarnessError(
                f"{name!r} is not the name of a repository.",
                "Name the account and the model, in letters, digits, '-', '_' and '.': "
                "ACCOUNT/NAME",
            )
        self.name = name
        self.private = private

    def upload(self, files: Mapping[str, Path], message: str) -> Commit:
        """Send files in one commit, and look whether all of them have arrived.

        Args:
            files: path in the repository -> file.
            message: the message of the commit.

        Raises:
            HarnessError: there is no token, the repository has another visibility, the hub refuses
                or cannot be reached, or a file is missing afterwards.
        """
        from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise HarnessError("HF_HUB_OFFLINE forbids to use the hub.", "unset HF_HUB_OFFLINE")
        if get_token() is None:
            raise HarnessError("There is no access token for the hub.", _LOGIN)
        api = HfApi()
        with _plain_errors(f"The account of {self.name} cannot be used"):
            api.whoami()
        with _plain_errors(f"The repository {self.name} cannot be created"):
            before = self._open(api)
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
            for name, path in files.items()
        ]
        with _plain_errors(f"The files cannot be sent to {self.name}, which has none of them now"):
            commit = api.create_commit(
                self.name, operations, commit_message=message, repo_type="model"
            )
            there = _sizes(api.model_info(self.name, files_metadata=True))
        wrong = [name for name, path in files.items() if there.get(name) != path.stat().st_size]
        if wrong:
            raise HarnessError(
                f"Of {len(files)} files, these did not arrive whole at {self.name}: "
                f"{', '.join(wrong)}.",
                "Look whether a .gitignore in the repository leaves them out, and push again.",
            )
        return Commit(str(commit.commit_url), sorted(before - set(files)))

    def _open(self, api: HfApi) -> set[str]:
        """Create the repository if there is none; return the files that it has."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = api.model_info(self.name)
        except RepositoryNotFoundError:
            api.create_repo(self.name, repo_type="model", private=self.private)
            info = api.model_info(self.name)
        if bool(info.private) != self.private:
            now, wish = ("private", "public") if info.private else ("public", "private")
            option = "Leave out --public" if info.private else "Push to all the same: --public"
            raise HarnessError(
                f"The repository {self.name} is {now}, not {wish}; nothing was sent.",
                f"{option}; or change it in its settings: {api.endpoint}/{self.name}/settings",
            )
        # The hub puts this file into every new repository.
        return set(_sizes(info)) - {".gitattributes"}


def _sizes(info: ModelInfo) -> dict[str, int | None]:
    return {file.rfilename: file.size for file in info.siblings or []}


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn errors of the hub and its client into one with a hint."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HarnessError:
        raise
    # Its client of HTTP, which differs by version, has errors of a type of its own, and errors of
    # uploads come as RuntimeError and ValueError.
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        if isinstance(cause, HfHubHTTPError):
            raise _refused(what, cause) from error
        raise HarnessError(
            f"{what}: {first_line(cause or error)}",
            "Look whether this machine reaches the hub, and push again. A mirror is named by "
            "HF_ENDPOINT.",
        ) from error


def _refused(what: str, error: HfHubHTTPError) -> HarnessError:
    status = error.response.status_code
    said = (error.server_message or first_line(error)).strip().partition("\n")[0]
    hints = {
        401: f"The token is not valid, or has expired: {_LOGIN}",
        403: "The token has no right to write there: make one with write access to that account, "
        "then hf auth login, or set HF_TOKEN",
        429: "The hub has had too many requests; try again later.",
    }
    return HarnessError(f"{what}: the hub answers {status}, {said}", hints.get(status))
