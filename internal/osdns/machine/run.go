package machine

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// killedDelay is how long a program that was killed may keep its output open
// through children.
const killedDelay = time.Second

func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := Program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = killedDelay
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}
