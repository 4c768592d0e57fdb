"""The bundled reference inference target: a real, small fleet to watch, degrade and break.

A stranger to the rest of the product: it imports nothing else from ``controlplane``, and only the command line
starts it. ``fleet.run_fleet`` runs a fleet behind Envoy, ``server.serve_endpoint`` one endpoint and
``cache_server.serve_cache`` one response cache alone, ``load.run_load`` drives load. Start reading at ``fleet``;
``spec`` holds every setting.
"""
