"""Ray takes a process that is slow to answer for a dead one. In tests none is too slow; what hangs, pytest ends."""

PATIENCE = {
    "RAY_worker_register_timeout_seconds": "1800",
    "RAY_agent_register_timeout_ms": "1800000",
    "RAY_gcs_server_request_timeout_seconds": "1800",
    "RAY_py_gcs_connect_timeout_s": "1800",
    "RAY_health_check_timeout_ms": "1800000",
}
