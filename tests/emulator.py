"""An object store like Google's on a port of this machine, in memory, until it is killed; it prints the port.

The emulator of the registries, and what it lacks of the real one: a write or a deletion that holds only where an object
is still of the generation named, and the generation in the answer to a reader.
"""

from http import HTTPStatus

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

BUCKET = "bucket"


def generation(storage, bucket, name):
    """Return an object's generation, which counts its writes; 0 where there is none."""
    try:
        return storage.get_file_obj(bucket, name)["generation"]
    except NotFound:
        return "0"


def name_of(request):
    """Return the name of the object that a request is about."""
    if "object_id" in request.params:
        return request.params["object_id"]
    if "name" in request.query:
        return request.query["name"][0]
    return request.data.get("meta", request.data)["name"]


def conditional(handler):
    """Return a handler that refuses what asks for another generation; requests come one at a time."""

    def handle(request, response, storage):
        wanted = request.query.get("ifGenerationMatch")
        if wanted and generation(storage, request.params["bucket_name"], name_of(request)) != wanted[0]:
            response.status = HTTPStatus.PRECONDITION_FAILED
        else:
            handler(request, response, storage)

    return handle


def labelled(handler):
    """Return a handler that says the generation of what it answers with."""

    def handle(request, response, storage):
        handler(request, response, storage)
        response["x-goog-generation"] = generation(storage, request.params["bucket_name"], name_of(request))

    return handle


def main():
    """Serve."""
    made = {handler: conditional(handler) for handler in (objects.insert, objects.delete)}
    made |= {handler: labelled(handler) for handler in (objects.get, objects.download)}
    server.HANDLERS = tuple(
        (path, {method: made.get(handler, handler) for method, handler in handlers.items()})
        for path, handlers in server.HANDLERS
    )
    served = server.create_server("localhost", 0, in_memory=True, default_bucket=BUCKET)
    served.start()
    print(served._api._httpd.server_address[1], flush=True)


if __name__ == "__main__":
    main()
