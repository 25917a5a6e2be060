package kube

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"github.com/tunneld/tunneld/internal/status"
)

// silenceLimit is how long the API server may leave a question unanswered
// before it counts as offline.
const silenceLimit = 10 * time.Second

var (
	// errSilent is the failure of a check that got no answer.
	errSilent = errors.New("no answer")
	// errUnauthorized is the denial by the API server itself.
	errUnauthorized = errors.New("401 Unauthorized")
)

// A link knows how the conversation with one API server goes, from the
// outcomes of all requests. The zero value has asked nothing yet.
type link struct {
	host    string // for messages
	id      ID     // for hints
	plugin  string // the command that gets the credentials, or ""
	changed func()
	waiting func() // a question was put, and all others have been answered

	mu       sync.Mutex // guards the following
	answered time.Time  // when the last answer came
	open     int        // questions without an outcome
	asked    time.Time  // when the oldest question without an answer was put
	failure  error      // the last outcome was that nothing could be asked
	denied   error      // the credentials were refused, or could not be had
}

func newLink(id ID, to access, changed func()) *link {
	l := &link{host: to.rest.Host, id: id, changed: changed}
	if p := to.rest.ExecProvider; p != nil {
		l.plugin = p.Command
	}
	return l
}

// An outcome is what became of a question.
type outcome struct {
	code    int   // the HTTP status of an answer
	failure error // the connection failed
	denied  error // there were no credentials to ask with
	silent  bool  // nothing came in the time that the asker had
}

var (
	withdrawn = outcome{}
	silence   = outcome{silent: true}
)

// answer is any HTTP response; code 0 is one whose status is not known.
func answer(code int) outcome {
	if code == 0 {
		code = http.StatusOK
	}
	return outcome{code: code}
}

// ask notes a question and returns how to tell its outcome.
func (l *link) ask() func(outcome) {
	l.mu.Lock()
	l.open++
	first := l.asked.IsZero()
	if first {
		l.asked = time.Now()
	}
	l.mu.Unlock()
	if first && l.waiting != nil {
		l.waiting()
	}
	return l.tell
}

func (l *link) tell(o outcome) {
	l.mu.Lock()
	before := l.stateLocked()
	l.open--
	switch {
	case o.code != 0:
		l.answered, l.asked, l.failure, l.denied = time.Now(), time.Time{}, nil, nil
		if l.open > 0 {
			l.asked = l.answered
		}
		if o.code == http.StatusUnauthorized {
			l.denied = errUnauthorized
		}
	case o.failure != nil:
		l.failure, l.denied = o.failure, nil
	case o.denied != nil:
		l.denied = o.denied
	case !o.silent && l.open == 0 && l.failure == nil:
		if before == status.Offline { // what was noticed is not undone by looking away
			l.failure = errSilent
		}
		l.asked = time.Time{} // nobody wants to know any more
	}
	after := l.stateLocked()
	l.mu.Unlock()
	if before != after {
		l.changed()
	}
}

// dead notes that a check that began at the given time got no answer: the link
// is down although no error says so, unless another question was answered since.
func (l *link) dead(began time.Time) {
	l.mu.Lock()
	before := l.stateLocked()
	if l.failure == nil && l.denied == nil && !l.answered.After(began) {
		l.failure = errSilent
	}
	after := l.stateLocked()
	l.mu.Unlock()
	if before != after {
		l.changed()
	}
}

// quiet returns for how long nothing has been heard.
func (l *link) quiet() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.answered)
}

// up reports whether it makes sense to ask for anything.
func (l *link) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stateLocked()
	return s == status.Ready || s == status.Connecting
}

func (l *link) stateLocked() status.State {
	var untrusted *tls.CertificateVerificationError
	switch {
	case l.denied != nil:
		return status.NeedsLogin
	case errors.As(l.failure, &untrusted):
		return status.Failed
	case l.failure != nil:
		return status.Offline
	case !l.asked.IsZero() && time.Since(l.asked) >= silenceLimit:
		return status.Offline
	case l.answered.IsZero():
		return status.Connecting
	}
	return status.Ready
}

// condition is the cluster's state.
func (l *link) condition() status.Condition {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := status.Condition{State: l.stateLocked()}
	switch c.State {
	case status.NeedsLogin:
		c.Cause = fmt.Sprintf("the API server at %s does not accept the credentials of context %s: %v", l.host, l.id.Context, l.denied)
		if l.denied != errUnauthorized {
			c.Cause = fmt.Sprintf("the credentials of context %s cannot be had: %v", l.id.Context, l.denied)
		}
		c.Hint = l.login()
	case status.Failed:
		c.Cause = fmt.Sprintf("the certificate of the API server at %s is not the one that context %s expects: %v", l.host, l.id.Context, l.failure)
		c.Hint = l.id.kubectl("config view --minify")
	case status.Offline:
		switch {
		case l.failure != nil && l.failure != errSilent:
			c.Cause = fmt.Sprintf("the API server at %s cannot be reached: %v", l.host, l.failure)
		case l.answered.IsZero():
			c.Cause = fmt.Sprintf("the API server at %s does not answer", l.host)
		default:
			c.Cause = fmt.Sprintf("the API server at %s has not answered since %s", l.host, l.answered.Format(time.TimeOnly))
		}
		c.Hint = fmt.Sprintf("check the network or the VPN (%s); it is tried again by itself", l.id.kubectl("version"))
	case status.Connecting:
		c.Cause = fmt.Sprintf("waiting for the first answer of the API server at %s", l.host)
	}
	return c
}

// login says how to get credentials.
func (l *link) login() string {
	if _, err := exec.LookPath(l.plugin); l.plugin != "" && errors.Is(err, exec.ErrNotFound) {
		return fmt.Sprintf("%s is not in tunneld's PATH, which may be another than your shell's: give it that one (tunnelctl reload --env, or a new start), or write the plugin's whole path into the kubeconfig, then: tunnelctl reload", l.plugin)
	}
	hint := fmt.Sprintf("log in as for kubectl (%s), then: tunnelctl reload", l.id.kubectl("version"))
	if l.plugin != "" {
		hint += " (with --env if that works already: a service may have another environment)"
	}
	return hint
}

// asking returns for how long some question has had no answer; 0 if all have.
func (l *link) asking() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked.IsZero() {
		return 0
	}
	return max(time.Since(l.asked), 1)
}
