package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/invoker"
	"github.com/tunneld/tunneld/internal/localapi"
	"github.com/tunneld/tunneld/internal/tls/truststore"
)

// userReport has the user's part planned or done by a tunnelctl that runs as the user.
// Whatever that says is only shown.
func (c *trustChange) userReport(ctx context.Context, how string) (trustReport, error) {
	args := []string{"trust", how, "--only", string(truststore.User), "-o", "json"}
	if c.remove {
		args = append(args, "--remove")
	}
	for _, domain := range c.domains {
		args = append(args, "--domain", domain)
	}
	var r trustReport
	out, err := c.asUser(ctx, args...)
	if _, said := errors.AsType[*saidError](err); err != nil && (!said || len(out) == 0) {
		return r, err
	}
	// What failed in part says so itself, step by step.
	if err := json.Unmarshal(out, &r); err != nil {
		return trustReport{}, fmt.Errorf("read what was done as user %s: %w", c.who.Name, err)
	}
	for _, s := range r.Steps {
		if s.Place.Scope != truststore.User {
			return trustReport{}, fmt.Errorf("what was done as user %s is not that user's: %s", c.who.Name, s.Place.Path)
		}
	}
	return r, nil
}

// userPatience is how long the user's part may take: programs are run for each store.
const userPatience = 5 * time.Minute

// asUser runs this program as the user, and returns what it wrote. What it said to
// people was said, so its failure is only a status.
func (c *trustChange) asUser(ctx context.Context, args ...string) ([]byte, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if socket := localapi.Named(c.client.Socket); socket != "" {
		args = append([]string{"--socket", socket}, args...)
	}
	out, said, err := invoker.Output(ctx, userPatience, func(ctx context.Context) *exec.Cmd { return c.who.Command(ctx, program, args...) })
	if ended, ok := errors.AsType[*exec.ExitError](err); ok && ended.Exited() {
		return out, &saidError{status: ended.ExitCode(), said: string(said)}
	}
	if err != nil {
		return out, &localapi.Error{
			Message: fmt.Sprintf("run %s as user %s: %v", program, c.who.Name, err),
			Hint:    "put tunnelctl where that user can run it, such as /usr/local/bin",
		}
	}
	return out, nil
}

// A saidError is the failure of another tunnelctl, with all that it said about it.
type saidError struct {
	status int
	said   string
}

func (e *saidError) Error() string {
	return strings.TrimPrefix(strings.TrimSpace(e.said), "tunnelctl: error: ")
}
