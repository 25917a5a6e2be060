package apiserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// DefaultUser is whom the cluster's first token belongs to.
const DefaultUser = "demo"

// A Rule names requests. "*" stands for anything; an empty Namespace for every
// namespace and the cluster scope, an empty Subresource for the resource
// itself.
type Rule struct {
	Verb, Resource, Subresource, Namespace string
}

func (r *Rule) covers(q *Request) bool {
	is := func(pattern, value string) bool { return pattern == "*" || pattern == value }
	return is(r.Verb, q.Verb) && is(r.Resource, q.Resource) && is(r.Subresource, q.Subresource) &&
		(r.Namespace == "" || is(r.Namespace, q.Namespace))
}

// A Request is what a client asked of the API server, in the terms in which
// RBAC judges it.
type Request struct {
	User        string // empty if the server did not know the client
	Verb        string // for paths that are no resource, the method in lower case
	Group       string
	Resource    string // empty for paths that are no resource
	Subresource string
	Namespace   string
	Name        string
	Path        string
	// Upgrade is the protocol that the client wanted to switch to.
	Upgrade string
}

// String is for messages: "get pods/portforward task-api/task-db-0".
func (q Request) String() string {
	if q.Resource == "" {
		return q.Verb + " " + q.Path
	}
	return q.Verb + " " + q.target() + " " + strings.Trim(q.Namespace+"/"+q.Name, "/")
}

func (q *Request) target() string {
	if q.Subresource != "" {
		return q.Resource + "/" + q.Subresource
	}
	return q.Resource
}

// recorded is how many requests are remembered at least.
const recorded = 10000

// auth knows tokens, what is forbidden, and what was asked.
type auth struct {
	mu       sync.Mutex
	tokens   map[string]string // token to user
	latest   string
	rules    []*Rule
	requests []Request
}

func newAuth() *auth {
	a := &auth{tokens: map[string]string{}}
	a.issue(DefaultUser)
	return a
}

func (a *auth) issue(user string) string {
	token := rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = user
	a.latest = token
	return token
}

// user returns whose bearer token the request carries.
func (a *auth) user(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tokens[strings.TrimSpace(token)]
}

func (a *auth) record(q Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.requests) == 2*recorded {
		a.requests = slices.Delete(a.requests, 0, recorded)
	}
	a.requests = append(a.requests, q)
}

func (a *auth) forbid(r Rule) (undo func()) {
	rule := &r
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rules = append(a.rules, rule)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.rules = slices.DeleteFunc(a.rules, func(r *Rule) bool { return r == rule })
	}
}

// check returns an error in the API server's words if q is forbidden.
func (a *auth) check(q *Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.ContainsFunc(a.rules, func(r *Rule) bool { return r.covers(q) }) {
		return nil
	}
	where := "at the cluster scope"
	if q.Namespace != "" {
		where = fmt.Sprintf("in the namespace %q", q.Namespace)
	}
	reason := fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", q.User, q.Verb, q.target(), q.Group, where)
	return apierrors.NewForbidden(schema.GroupResource{Group: q.Group, Resource: q.Resource}, q.Name, errors.New(reason))
}

// review answers a SelfSubjectAccessReview from the same rules.
func (a *auth) review(user string, review *authorizationv1.SelfSubjectAccessReview) {
	review.TypeMeta = metav1.TypeMeta{Kind: "SelfSubjectAccessReview", APIVersion: authorizationv1.SchemeGroupVersion.String()}
	review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: true}
	asked := review.Spec.ResourceAttributes
	if asked == nil {
		return
	}
	review.Status.Allowed = a.check(&Request{
		User:        user,
		Verb:        asked.Verb,
		Group:       asked.Group,
		Resource:    asked.Resource,
		Subresource: asked.Subresource,
		Namespace:   asked.Namespace,
		Name:        asked.Name,
	}) == nil
}

// Token returns the token that was issued last. It may have expired.
func (s *Server) Token() string {
	s.auth.mu.Lock()
	defer s.auth.mu.Unlock()
	return s.auth.latest
}

// IssueToken returns a new token for a user.
func (s *Server) IssueToken(user string) string { return s.auth.issue(user) }

// ExpireTokens makes all tokens issued so far worthless: requests get 401.
// Watches and upgraded connections live on, as they do in real clusters.
func (s *Server) ExpireTokens() {
	s.auth.mu.Lock()
	defer s.auth.mu.Unlock()
	clear(s.auth.tokens)
}

// Forbid has requests that the rule covers refused with 403, until undo.
func (s *Server) Forbid(r Rule) (undo func()) { return s.auth.forbid(r) }

// Requests returns what was asked of the API server, oldest first: the last
// ten thousand requests at least.
func (s *Server) Requests() []Request {
	s.auth.mu.Lock()
	defer s.auth.mu.Unlock()
	return slices.Clone(s.auth.requests)
}

// ForgetRequests empties what Requests returns.
func (s *Server) ForgetRequests() {
	s.auth.mu.Lock()
	defer s.auth.mu.Unlock()
	s.auth.requests = nil
}
