package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

const (
	// patience bounds a call that the daemon should answer at once, and
	// slowPatience one that may have to ask a cluster.
	patience     = 10 * time.Second
	slowPatience = 30 * time.Second
)

// A Client speaks to a daemon. The zero value looks for it in the usual
// places. Its methods may be called concurrently.
type Client struct {
	// Socket is the only socket to try; empty means those of Candidates.
	Socket string
}

// Status asks for everything.
func (c *Client) Status(ctx context.Context) (status.Status, error) {
	var s status.Status
	err := c.call(ctx, patience, http.MethodGet, "/v0/status", nil, &s)
	return s, err
}

// Doctor has everything looked at.
func (c *Client) Doctor(ctx context.Context) ([]status.Check, error) {
	var checks []status.Check
	err := c.call(ctx, slowPatience, http.MethodGet, "/v0/doctor", nil, &checks)
	return checks, err
}

// Version asks which daemon it is.
func (c *Client) Version(ctx context.Context) (status.Version, error) {
	var v status.Version
	err := c.call(ctx, patience, http.MethodGet, "/v0/version", nil, &v)
	return v, err
}

// Add asks for a forward.
func (c *Client) Add(ctx context.Context, req AddRequest) (AddResponse, error) {
	var answer AddResponse
	err := c.call(ctx, slowPatience, http.MethodPost, "/v0/forwards", req, &answer)
	return answer, err
}

// Remove asks for the end of a forward.
func (c *Client) Remove(ctx context.Context, name string) error {
	path, err := forwardPath(name)
	if err != nil {
		return err
	}
	return c.call(ctx, slowPatience, http.MethodDelete, path, nil, nil)
}

// Wait forces a probe and waits until the forward is ready or degraded, at
// most for timeout; then it returns the state that the forward has.
func (c *Client) Wait(ctx context.Context, name string, timeout time.Duration) (status.Forward, error) {
	var f status.Forward
	path, err := forwardPath(name)
	if err != nil {
		return f, err
	}
	path += "/wait?timeout=" + timeout.String()
	err = c.call(ctx, timeout+slowPatience, http.MethodPost, path, nil, &f)
	return f, err
}

// Reload asks the daemon to read its configuration and the kubeconfigs again.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, slowPatience, http.MethodPost, "/v0/reload", nil, nil)
}

// SetEnvironment gives the service the variables of a shell.
func (c *Client) SetEnvironment(ctx context.Context, req EnvironmentRequest) (EnvironmentResponse, error) {
	var answer EnvironmentResponse
	err := c.call(ctx, slowPatience, http.MethodPut, "/v0/environment", req, &answer)
	return answer, err
}

// Configured asks for the configured forwards in the form of the file.
func (c *Client) Configured(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.call(ctx, patience, http.MethodGet, "/v0/forwards", nil, &text)
	return text, err
}

// RootPEM asks for the certificate that clients must trust.
func (c *Client) RootPEM(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.call(ctx, patience, http.MethodGet, "/v0/ca.pem", nil, &text)
	return text, err
}

// RenewCA has a new CA made; clients have to trust it anew.
func (c *Client) RenewCA(ctx context.Context) error {
	return c.call(ctx, patience, http.MethodPost, "/v0/ca/renew", nil, nil)
}

// CheckLeaf asks for a certificate of that key for 127.0.0.1, good for minutes:
// leaf and intermediate, in PEM.
func (c *Client) CheckLeaf(ctx context.Context, key Key) ([]byte, error) {
	var text []byte
	err := c.call(ctx, patience, http.MethodPost, "/v0/ca/check-leaf", key, &text)
	return text, err
}

// Logs yields the last n log records of a forward, or of all if it is empty,
// and goes on until ctx is done if follow is set. It ends with an error, if
// there is one.
func (c *Client) Logs(ctx context.Context, forward string, n int, follow bool) iter.Seq2[status.LogRecord, error] {
	return func(yield func(status.LogRecord, error) bool) {
		query := url.Values{"forward": {forward}, "n": {strconv.Itoa(n)}, "follow": {strconv.FormatBool(follow)}}
		body, err := c.open(ctx, http.MethodGet, "/v0/logs?"+query.Encode(), nil)
		if err != nil {
			yield(status.LogRecord{}, err)
			return
		}
		defer body.Close()
		for lines := json.NewDecoder(body); ; {
			var rec status.LogRecord
			switch err := lines.Decode(&rec); {
			case errors.Is(err, io.EOF) || ctx.Err() != nil:
				return
			case err != nil:
				yield(rec, fmt.Errorf("read the log: %w", err))
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// forwardPath is where a forward is. What cannot be a name is not asked for:
// "..", for one, would be taken for another path.
func forwardPath(name string) (string, error) {
	if strings.Trim(name, ".") == "" || strings.Contains(name, "/") {
		return "", &Error{Code: http.StatusNotFound, Message: fmt.Sprintf("there is no forward %q", name), Hint: "tunnelctl ls"}
	}
	return "/v0/forwards/" + url.PathEscape(name), nil
}

// call makes a request and decodes the answer into out: JSON, or the bytes if
// out is a *[]byte. Within the limit the daemon must have answered.
func (c *Client) call(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := c.open(limited, method, path, in)
	if err == nil {
		defer body.Close()
		switch out := out.(type) {
		case nil:
		case *[]byte:
			*out, err = io.ReadAll(body)
		default:
			err = json.NewDecoder(body).Decode(out)
		}
	}
	_, said := errors.AsType[*Error](err)
	switch {
	case err == nil, said, ctx.Err() != nil, errors.Is(err, ErrNotRunning), errors.Is(err, ErrForeign):
		return err
	case limited.Err() != nil:
		return &Error{
			Code:    http.StatusGatewayTimeout,
			Message: fmt.Sprintf("tunneld has not answered for %v", limit),
			Hint:    "is it stopped, or the machine very busy? It may have to be started again",
		}
	}
	return fmt.Errorf("%w: it ended before it had answered (%v)", ErrNotRunning, err)
}

// open makes a request and returns the body of a good answer.
func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+Host+path, body)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, c.Socket) },
		DisableKeepAlives: true,
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	e := &Error{Code: resp.StatusCode}
	if err := json.NewDecoder(resp.Body).Decode(e); err != nil || e.Message == "" {
		e.Message = fmt.Sprintf("the daemon answered %s", resp.Status)
	}
	return nil, e
}
