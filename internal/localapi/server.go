package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

// maxRequest bounds a request's body.
const maxRequest = 1 << 20

// A Server answers the control API with the functions in it, all of which must
// be set. They may be called concurrently, and their errors may be *Error.
type Server struct {
	Version status.Version
	// Status reports everything.
	Status func() status.Status
	// Doctor looks at everything that can be looked at, in an order in which one
	// thing explains the next.
	Doctor func(context.Context) []status.Check
	// Add writes a forward into the configuration and brings it into force.
	Add func(context.Context, AddRequest) (AddResponse, error)
	// Remove takes one out again.
	Remove func(ctx context.Context, name string) error
	// Wait forces one probe of the forward, and returns when it is ready or
	// degraded, or with its state of then when ctx is done.
	Wait func(ctx context.Context, name string) (status.Forward, error)
	// Reload reads the configuration and the kubeconfigs again, and returns
	// the error that the configuration has.
	Reload func(context.Context) error
	// SetEnvironment gives the service another environment, and then does as Reload
	// does for the kubeconfigs.
	SetEnvironment func(context.Context, EnvironmentRequest) (EnvironmentResponse, error)
	// Configured is the configured forwards in the form of the file.
	Configured func() ([]byte, error)
	// RootPEM is the certificate that clients must trust.
	RootPEM func() ([]byte, error)
	// RenewCA puts a new CA in the place of the one that there is.
	RenewCA func(context.Context) error
	// CheckLeaf certifies a public key for 127.0.0.1, for some minutes: leaf and
	// intermediate, in PEM. The client proves with it who trusts the CA; no private
	// key crosses the socket.
	CheckLeaf func(context.Context, Key) ([]byte, error)
	// Logs yields the last n records of a forward, or of all if forward is
	// empty, and goes on until ctx is done if follow is set.
	Logs func(ctx context.Context, forward string, n int, follow bool) iter.Seq[status.LogRecord]

	Log *slog.Logger // nil: none
}

// Serve answers on l, which should come from Listen, until ctx is done. It
// closes l and waits for the requests in progress.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	log := s.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	requests, cancel := context.WithCancel(context.Background())
	defer cancel()
	hs := &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       withPeer,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the control socket: %w", err)
	case <-ctx.Done():
	}
	cancel() // ends those that follow logs
	limited, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	err := hs.Shutdown(limited)
	if errors.Is(err, context.DeadlineExceeded) {
		err = hs.Close()
	}
	<-served
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v0/version", func(w http.ResponseWriter, r *http.Request) { reply(w, s.Version) })
	mux.HandleFunc("GET /v0/status", func(w http.ResponseWriter, r *http.Request) { reply(w, s.Status()) })
	mux.HandleFunc("GET /v0/doctor", func(w http.ResponseWriter, r *http.Request) { reply(w, s.Doctor(r.Context())) })
	mux.HandleFunc("POST /v0/forwards", s.add)
	mux.HandleFunc("GET /v0/forwards", func(w http.ResponseWriter, r *http.Request) {
		text(w, "application/yaml", s.Configured)
	})
	mux.HandleFunc("DELETE /v0/forwards/{name}", func(w http.ResponseWriter, r *http.Request) {
		done(w, s.Remove(r.Context(), r.PathValue("name")))
	})
	mux.HandleFunc("POST /v0/forwards/{name}/wait", s.wait)
	mux.HandleFunc("POST /v0/reload", func(w http.ResponseWriter, r *http.Request) {
		done(w, s.Reload(r.Context()))
	})
	mux.HandleFunc("PUT /v0/environment", s.setEnvironment)
	mux.HandleFunc("GET /v0/ca.pem", func(w http.ResponseWriter, r *http.Request) {
		text(w, "application/x-pem-file", s.RootPEM)
	})
	mux.HandleFunc("POST /v0/ca/renew", func(w http.ResponseWriter, r *http.Request) {
		done(w, s.RenewCA(r.Context()))
	})
	mux.HandleFunc("POST /v0/ca/check-leaf", s.checkLeaf)
	mux.HandleFunc("GET /v0/logs", s.logs)
	return s.guard(mux)
}

// guard lets only the socket's owner in, and no web page.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _ := r.Context().Value(peerKey{}).(error)
		switch {
		case peer != nil:
			fail(w, &Error{Code: http.StatusForbidden, Message: peer.Error()})
		case r.Host == "":
			fail(w, &Error{Code: http.StatusForbidden, Message: "the request names no host", Hint: "send the header Host: " + Host})
		case r.Host != Host:
			fail(w, &Error{Code: http.StatusForbidden, Message: fmt.Sprintf("host %q is not served here", r.Host)})
		case r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "":
			fail(w, &Error{Code: http.StatusForbidden, Message: "requests of web pages are not served here"})
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
			next.ServeHTTP(w, r)
		}
	})
}

type peerKey struct{}

// withPeer is the http.Server's ConnContext: it keeps why the peer may not be
// served, if so.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if err := checkPeer(c); err != nil {
		return context.WithValue(ctx, peerKey{}, err)
	}
	return ctx
}

func (s *Server) checkLeaf(w http.ResponseWriter, r *http.Request) {
	var key Key
	if !decode(w, r, &key) {
		return
	}
	text(w, "application/x-pem-file", func() ([]byte, error) { return s.CheckLeaf(r.Context(), key) })
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	var req AddRequest
	if !decode(w, r, &req) {
		return
	}
	answer, err := s.Add(r.Context(), req)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, answer)
}

func (s *Server) setEnvironment(w http.ResponseWriter, r *http.Request) {
	var req EnvironmentRequest
	if !decode(w, r, &req) {
		return
	}
	answer, err := s.SetEnvironment(r.Context(), req)
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, answer)
}

func (s *Server) wait(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if text := r.FormValue("timeout"); text != "" {
		timeout, err := time.ParseDuration(text)
		if err != nil {
			fail(w, &Error{Message: "timeout: " + err.Error()})
			return
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	f, err := s.Wait(ctx, r.PathValue("name"))
	if err == nil && r.Context().Err() != nil {
		err = &Error{Code: http.StatusServiceUnavailable, Message: "tunneld is being stopped"}
	}
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, f)
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.FormValue("n"))
	if err != nil || n < 0 {
		fail(w, &Error{Message: "n is not a count"})
		return
	}
	follow := r.FormValue("follow") == "true"
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	flush := http.NewResponseController(w).Flush
	flush() // a follower knows that it is connected
	for rec := range s.Logs(r.Context(), r.FormValue("forward"), n, follow) {
		if lines.Encode(rec) != nil {
			return
		}
		if follow && flush() != nil {
			return
		}
	}
}

// decode reads a request's body into out; if it cannot, it answers, and returns
// false.
func decode(w http.ResponseWriter, r *http.Request, out any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		fail(w, &Error{Message: "the request cannot be read: " + err.Error(), Hint: "is tunnelctl as new as tunneld?"})
		return false
	}
	return true
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func text(w http.ResponseWriter, mediaType string, get func() ([]byte, error)) {
	body, err := get()
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Write(body)
}

func reply(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, err error) {
	e := errorOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code)
	json.NewEncoder(w).Encode(e)
}
