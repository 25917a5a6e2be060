package main

// stateDir has the lock that whoever changes the system holds. It stays, since
// systemd mounts it for the service.
const stateDir = "/var/lib/tunneld-helper"
