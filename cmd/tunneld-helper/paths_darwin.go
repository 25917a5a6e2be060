package main

// stateDir has the lock that whoever changes the system holds. It stays. There is no
// /var/lib on this system.
const stateDir = "/var/db/tunneld-helper"
