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
	"time"

	"github.com/tunneld/tunneld/internal/status"
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
	err := c.call(ctx, http.MethodGet, "/v0/status", nil, &s)
	return s, err
}

// Version asks which daemon it is.
func (c *Client) Version(ctx context.Context) (status.Version, error) {
	var v status.Version
	err := c.call(ctx, http.MethodGet, "/v0/version", nil, &v)
	return v, err
}

// Add asks for a forward.
func (c *Client) Add(ctx context.Context, req AddRequest) (AddResponse, error) {
	var answer AddResponse
	err := c.call(ctx, http.MethodPost, "/v0/forwards", req, &answer)
	return answer, err
}

// Remove asks for the end of a forward.
func (c *Client) Remove(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v0/forwards/"+url.PathEscape(name), nil, nil)
}

// Wait forces a probe and waits until the forward is ready or degraded, at
// most for timeout; then it returns the state that the forward has.
func (c *Client) Wait(ctx context.Context, name string, timeout time.Duration) (status.Forward, error) {
	var f status.Forward
	path := fmt.Sprintf("/v0/forwards/%s/wait?timeout=%s", url.PathEscape(name), timeout)
	err := c.call(ctx, http.MethodPost, path, nil, &f)
	return f, err
}

// Reload asks the daemon to read its configuration and the kubeconfigs again.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v0/reload", nil, nil)
}

// Configured asks for the configured forwards in the form of the file.
func (c *Client) Configured(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.call(ctx, http.MethodGet, "/v0/forwards", nil, &text)
	return text, err
}

// RootPEM asks for the certificate that clients must trust.
func (c *Client) RootPEM(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.call(ctx, http.MethodGet, "/v0/ca.pem", nil, &text)
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

// call makes a request and decodes the answer into out: JSON, or the bytes if
// out is a *[]byte.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out, err = io.ReadAll(body)
	default:
		err = json.NewDecoder(body).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
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
