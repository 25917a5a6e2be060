package localapi

import (
	"errors"
	"net/http"

	"github.com/tunneld/tunneld/internal/status"
)

// Host is the only Host that the server answers to.
const Host = "tunneld"

// An AddRequest asks for a forward.
type AddRequest struct {
	// Target is NAME or KIND/NAME.
	Target string `json:"target"`
	// Kubeconfig is what the client's environment says: absolute paths, joined
	// by the OS's list separator.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// Context, Namespace and Name may be empty; the daemon finds them.
	Context   string `json:"context,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Ports are numbers or names; none means all.
	Ports []string `json:"ports,omitempty"`
	// HTTP is a port, "none", or empty for the daemon to find.
	HTTP            string `json:"http,omitempty"`
	AllowProduction bool   `json:"allowProduction,omitempty"`
}

// An AddResponse tells what became of it.
type AddResponse struct {
	// Added is false if there was such a forward already.
	Added   bool           `json:"added"`
	Forward status.Forward `json:"forward"`
	// Note says what was assumed.
	Note string `json:"note,omitempty"`
}

// An EnvironmentRequest has the service run with the variables of a shell, by name.
// Those of a former request that are not among them go.
type EnvironmentRequest struct {
	Variables map[string]string `json:"variables"`
}

// An EnvironmentResponse names the variables, sorted, and no values.
type EnvironmentResponse struct {
	Set     []string  `json:"set"`     // which were not there before
	Changed []string  `json:"changed"` // which had another value
	Unset   []string  `json:"unset"`   // which are not there any more
	LeftOut []LeftOut `json:"leftOut"`
	// Note says what does not count yet.
	Note string `json:"note,omitempty"`
}

// A LeftOut is a variable that would be of use and is not kept.
type LeftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// A Key asks for a certificate of a public key.
type Key struct {
	// PublicKey is a PEM block "PUBLIC KEY" (RFC 7468, section 13).
	PublicKey string `json:"publicKey"`
}

// An Error is a failure with a hint, as it crosses the socket.
type Error struct {
	// Code is the HTTP status; 0 means 400.
	Code    int    `json:"-"`
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// errorOf makes any error one that can be sent.
func errorOf(err error) *Error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return &Error{Code: http.StatusInternalServerError, Message: err.Error()}
	}
	if e.Code == 0 {
		return &Error{Code: http.StatusBadRequest, Message: e.Message, Hint: e.Hint}
	}
	return e
}
