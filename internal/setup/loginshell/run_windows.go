package loginshell

import (
	"context"
	"errors"
)

// run has nothing to run: what is started at the logon has the user's environment.
func (s Shell) run(context.Context, invocation, string) error { return errors.ErrUnsupported }
