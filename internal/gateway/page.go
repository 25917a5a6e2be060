package gateway

import (
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"strings"

	"github.com/tunneld/tunneld/internal/forward"
	"github.com/tunneld/tunneld/internal/status"
)

// A page explains why there is no answer from the app. Its tags are the JSON
// that a client gets who asks for it.
type page struct {
	Status  int          `json:"status"`
	Forward string       `json:"forward,omitempty"`
	State   status.State `json:"state,omitempty"`
	Cause   string       `json:"cause"`
	Hint    string       `json:"hint,omitempty"`
	DevOnly string       `json:"devOnly"`
}

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{with .Forward}}{{.}}: {{end}}{{with .State}}{{.}}{{else}}{{$.Status}}{{end}}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 42em; margin: 4em auto; padding: 0 1em; color: #222; background: #fff }
b { background: #fde8d8; padding: .1em .4em; border-radius: .2em }
code { background: #f2f2f2; padding: .1em .3em }
footer { margin-top: 3em; color: #767676; font-size: .85em }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #1b1b1b } b { background: #5a3a20 } code { background: #333 } }
</style>
<h1>{{with .Forward}}{{.}}{{else}}tunneld{{end}}{{with .State}} <b>{{.}}</b>{{end}}</h1>
<p>{{.Cause}}</p>
{{with .Hint}}<p>What to do: <code>{{.}}</code></p>{{end}}
<footer>This answer is tunneld's, not the app's. {{.DevOnly}}</footer>
</html>
`))

// unavailable answers a request that could not be carried; it is the
// ReverseProxy's ErrorHandler.
func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		// The client has gone away, or the listener is being closed. To return
		// would be to answer 200.
		panic(http.ErrAbortHandler)
	}
	x := r.Context().Value(exchangeKey{}).(*exchange)
	if bad, ok := errors.AsType[badRequest](err); ok {
		page{Status: http.StatusBadRequest, Forward: x.row.Forward, Cause: bad.Error()}.write(w, r)
		return
	}
	x.fail(err)
	p := page{Status: http.StatusBadGateway, Forward: x.row.Forward, State: status.Degraded, Cause: err.Error()}
	var e *forward.Error
	if errors.As(err, &e) {
		p.Cause = e.Error()
		p.Hint = e.Hint
		if e.State != "" {
			p.State = e.State
		}
		if errors.Is(err, forward.ErrUnavailable) || errors.Is(err, forward.ErrNotDelivered) {
			p.Status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", "2")
		}
	}
	p.write(w, r)
}

// misdirected answers a request for a host that is not served at the address
// where it arrived (RFC 9110, section 15.5.20).
func misdirected(w http.ResponseWriter, r *http.Request, host string) {
	p := page{
		Status: http.StatusMisdirectedRequest,
		Cause:  "no forward on this address has the name " + host,
		Hint:   "tunnelctl ls",
	}
	if host == "" {
		p.Cause = "the request names no host, so it is for no forward"
		p.Hint = "send the forward's name in the Host header"
	}
	p.write(w, r)
}

func (p page) write(w http.ResponseWriter, r *http.Request) {
	p.DevOnly = status.DevOnly
	w.Header().Set("Cache-Control", "no-store")
	if strings.Contains(r.Header.Get("Accept"), "json") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.Status)
		json.NewEncoder(w).Encode(p)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.Status)
	pageTemplate.Execute(w, p)
}
