"""To the Hub and back: pushes that are whole or absent, loading that says what is wrong."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.hub.errors import HubError, NotOnHubError, explained
    from ddpm_pipeline.hub.files import model_files
    from ddpm_pipeline.hub.loading import load
    from ddpm_pipeline.hub.lookup import check_on_hub
    from ddpm_pipeline.hub.names import (
        HubCheckpoint,
        check_license,
        check_repo_id,
        parse_hub_checkpoint,
    )
    from ddpm_pipeline.hub.present import PresentCard
    from ddpm_pipeline.hub.publishing import files_to_push, push_model
    from ddpm_pipeline.hub.push import PushOptions, PushResult, push_folder
    from ddpm_pipeline.hub.requests import REQUEST_TIMEOUT, time_limit
    from ddpm_pipeline.hub.requirements import check_requirement, space_requirement
    from ddpm_pipeline.hub.spaces import push_app, space_files

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "errors": "HubError NotOnHubError explained",
        "files": "model_files",
        "loading": "load",
        "lookup": "check_on_hub",
        "names": "HubCheckpoint check_license check_repo_id parse_hub_checkpoint",
        "present": "PresentCard",
        "publishing": "files_to_push push_model",
        "push": "PushOptions PushResult push_folder",
        "requests": "REQUEST_TIMEOUT time_limit",
        "requirements": "check_requirement space_requirement",
        "spaces": "push_app space_files",
    },
)
