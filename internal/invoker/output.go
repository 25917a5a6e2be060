package invoker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// mostOutput is how much a program may print.
const mostOutput = 1 << 20

var errEndless = errors.New("it prints without an end")

// Output runs a program that is in a user's hands, who may stop it, or have it print
// anything. It is ended after patience, or when it prints too much. What it prints is
// also there if it fails.
func Output(ctx context.Context, patience time.Duration, command func(context.Context) *exec.Cmd) (out, said []byte, err error) {
	waiting, stop := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it did not end within %v", patience))
	defer stop()
	limited, giveUp := context.WithCancelCause(waiting)
	defer giveUp(nil)
	cmd := command(limited)
	cmd.WaitDelay = time.Second // after which it is killed, and nobody who holds on to its output waited for
	stdout, stderr := bounded{giveUp: giveUp}, bounded{giveUp: giveUp}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = context.Cause(limited)
	}
	return stdout.kept.Bytes(), stderr.kept.Bytes(), err
}

// A bounded keeps what is written to it, and gives up on too much.
type bounded struct {
	kept   bytes.Buffer // not embedded: io.Copy would fill it by itself
	giveUp context.CancelCauseFunc
}

func (b *bounded) Write(text []byte) (int, error) {
	if b.kept.Len()+len(text) > mostOutput {
		b.giveUp(errEndless)
		return 0, errEndless
	}
	return b.kept.Write(text)
}
