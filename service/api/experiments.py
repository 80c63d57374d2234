"""Experiments: `GET /v1/experiments`, `PUT`, `GET` and `DELETE /v1/experiments/{name}`, how they
are stopped, whom they are forced on, and what they found"""

from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

from service.api.paths import register_ids
from service.api.problems import documented
from service.api.schemas import RequestBody
from service.api.scopes import ADMIN, ScopedRoute
from service.api.state import service_of
from service.experiments.definition import Design, Experiment, Name, Status
from service.experiments.page import page
from service.experiments.report import Report

register_ids()
router = APIRouter(tags=["experiments"], route_class=ScopedRoute)

NameInPath = Annotated[Name, Path(description="of the experiment")]
UserInPath = Annotated[str, Path(min_length=1, max_length=128)]


class ExperimentShown(Experiment):
    """An experiment as it is kept, and where it stands."""

    status: Status

    @classmethod
    def shown(cls, experiment: Experiment) -> Self:
        fields = {name: getattr(experiment, name) for name in Experiment.model_fields}
        return cls(**fields, status=experiment.status_at(datetime.now(UTC)))


class ExperimentList(BaseModel):
    experiments: list[ExperimentShown]


class ForcedArm(RequestBody):
    """The arm that a user shall see."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"arm": "wide"}]})

    arm: Name


@router.get("/v1/experiments", openapi_extra=ADMIN, responses=documented(503))
async def list_experiments(request: Request) -> ExperimentList:
    """All experiments that are kept, by name: those that run, will run, and have ended."""
    found = await service_of(request).experiments.all()
    return ExperimentList(experiments=[ExperimentShown.shown(one) for one in found])


@router.put("/v1/experiments/{name}", openapi_extra=ADMIN, responses=documented(409, 413, 422, 503))
async def put_experiment(name: NameInPath, design: Design, request: Request) -> ExperimentShown:
    """Begins an experiment, or changes one.

    Every process that shares the Redis follows within a second or two. Once it has started, only
    its description and end can change, and its shares can grow in proportion, so that no user
    changes the arm. Another experiment that changes the same thing in the same scene at the same
    time is a conflict; others may run beside it, for each divides the users anew.
    """
    service = service_of(request)
    current = service.holder.current
    models = [current, *(one for one in service.holder.loaded if one is not current)]
    return ExperimentShown.shown(await service.experiments.put(name, design, models))


@router.get("/v1/experiments/{name}", openapi_extra=ADMIN, responses=documented(404, 422, 503))
async def read_experiment(name: NameInPath, request: Request) -> ExperimentShown:
    """What an experiment is, and where it stands."""
    return ExperimentShown.shown(await service_of(request).experiments.get(name))


@router.delete(
    "/v1/experiments/{name}", status_code=204, openapi_extra=ADMIN, responses=documented(422, 503)
)
async def delete_experiment(name: NameInPath, request: Request) -> None:
    """Removes an experiment and all that it counted. To keep what it found, stop it instead."""
    await service_of(request).experiments.remove(name)


@router.post(
    "/v1/experiments/{name}/stop", openapi_extra=ADMIN, responses=documented(404, 409, 422, 503)
)
async def stop_experiment(name: NameInPath, request: Request) -> ExperimentShown:
    """Ends an experiment now. Clicks that follow from its last answers still count."""
    return ExperimentShown.shown(await service_of(request).experiments.stop(name))


@router.put(
    "/v1/experiments/{name}/users/{user_id:id}",
    openapi_extra=ADMIN,
    responses=documented(404, 409, 413, 422, 503),
)
async def force_user(
    name: NameInPath, user_id: UserInPath, wanted: ForcedArm, request: Request
) -> ExperimentShown:
    """Lets a user see an arm, for testing: before the start too, and whatever the hash says.

    What such a user is shown and does is not counted.
    """
    experiments = service_of(request).experiments
    return ExperimentShown.shown(await experiments.force(name, user_id, wanted.arm))


@router.delete(
    "/v1/experiments/{name}/users/{user_id:id}",
    status_code=204,
    openapi_extra=ADMIN,
    responses=documented(404, 422, 503),
)
async def release_user(name: NameInPath, user_id: UserInPath, request: Request) -> None:
    """Lets the hash decide again."""
    await service_of(request).experiments.force(name, user_id, None)


@router.get(
    "/v1/experiments/{name}/report", openapi_extra=ADMIN, responses=documented(404, 422, 503)
)
async def report(name: NameInPath, request: Request) -> Report:
    """What an experiment has found so far."""
    return await service_of(request).experiments.report(name)


@router.get(
    "/v1/experiments/{name}/report.html",
    response_class=HTMLResponse,
    openapi_extra=ADMIN,
    responses=documented(404, 422, 503),
)
async def report_page(name: NameInPath, request: Request) -> HTMLResponse:
    """The report for people."""
    return HTMLResponse(page(await service_of(request).experiments.report(name)))
