package machine

// New returns this machine.
func New() System { return files() }
