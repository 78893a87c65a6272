"""How likely a model finds images: the variational bound, its report, and the commands on it."""

from typing import TYPE_CHECKING

from ddpm_pipeline.common.faces import lazy_face

if TYPE_CHECKING:
    from ddpm_pipeline.likelihood.bound import variational_bound
    from ddpm_pipeline.likelihood.config import BoundConfig, ScoreConfig
    from ddpm_pipeline.likelihood.ode import check_solver, ode_likelihood
    from ddpm_pipeline.likelihood.ode_report import OdeReport
    from ddpm_pipeline.likelihood.report import BoundReport
    from ddpm_pipeline.likelihood.saved_flow import check_flow, flow_of_saved_model
    from ddpm_pipeline.likelihood.saved_model import bound_of_saved_model, output_folder
    from ddpm_pipeline.likelihood.scores import scores_of_saved_model
    from ddpm_pipeline.likelihood.units import levels_of, units_of

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "bound": "variational_bound",
        "config": "BoundConfig ScoreConfig",
        "ode": "check_solver ode_likelihood",
        "ode_report": "OdeReport",
        "report": "BoundReport",
        "saved_flow": "check_flow flow_of_saved_model",
        "saved_model": "bound_of_saved_model output_folder",
        "scores": "scores_of_saved_model",
        "units": "levels_of units_of",
    },
)
