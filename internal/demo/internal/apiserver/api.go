package apiserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// serve answers one request to the API server.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	q := parseRequest(r)
	q.User = s.auth.user(r)
	s.auth.record(*q)
	// Credentials that are presented are verified, even where none are needed.
	if q.User == "" && r.Header.Get("Authorization") != "" {
		respondError(w, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	if q.Resource == "" && s.servePublic(w, r) {
		return
	}
	if q.User == "" {
		respondError(w, apierrors.NewUnauthorized("Unauthorized"))
		return
	}
	if q.Resource == "" {
		s.serveDiscovery(w, r)
		return
	}
	if err := s.auth.check(q); err != nil {
		respondError(w, err)
		return
	}
	if err := s.serveResource(w, r, q); err != nil {
		respondError(w, err)
	}
}

// serveResource answers what RBAC allowed, or returns the error to answer with.
func (s *Server) serveResource(w http.ResponseWriter, r *http.Request, q *Request) error {
	if q.Resource == "pods" && q.Subresource == "portforward" {
		return s.servePortForward(w, r, q)
	}
	if err := acceptsJSON(r); err != nil {
		return err
	}
	if q.Resource == "selfsubjectaccessreviews" && q.Group == authorizationv1.GroupName && q.Verb == "create" {
		review := new(authorizationv1.SelfSubjectAccessReview)
		if err := decodeBody(r, review); err != nil {
			return err
		}
		s.auth.review(q.User, review)
		respond(w, http.StatusCreated, review)
		return nil
	}
	k := s.kindByResource(q.Group, q.Resource)
	if k == nil {
		http.NotFound(w, r)
		return nil
	}
	switch {
	case q.Subresource == "scale" && k.scale:
		return s.serveScale(w, r, k, q)
	case q.Subresource != "":
		http.NotFound(w, r)
		return nil
	}
	switch q.Verb {
	case "get":
		o := s.Store.Get(k.resource, q.namespaceOf(k), q.Name)
		if o == nil {
			return apierrors.NewNotFound(k.groupResource(), q.Name)
		}
		respond(w, http.StatusOK, o)
		return nil
	case "list", "watch":
		return s.serveSelection(w, r, k, q)
	case "delete":
		if k.resource == "pods" {
			return s.serveDeletePod(w, r, q)
		}
	case "patch":
		if k.scale {
			return s.servePatch(w, r, k, q)
		}
	}
	return apierrors.NewMethodNotSupported(k.groupResource(), q.Verb)
}

// serveSelection answers list and watch.
func (s *Server) serveSelection(w http.ResponseWriter, r *http.Request, k *kind, q *Request) error {
	query := r.URL.Query()
	var o metav1.ListOptions
	if err := metav1.Convert_url_Values_To_v1_ListOptions(&query, &o, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	match, err := matcher(o.LabelSelector, o.FieldSelector)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if q.Verb == "watch" {
		return s.serveWatch(w, r, k, q, &o, match)
	}
	objects, version := s.Store.List(k.resource, q.namespaceOf(k), match)
	if objects == nil {
		objects = []Object{}
	}
	respond(w, http.StatusOK, struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []Object `json:"items"`
	}{
		metav1.TypeMeta{Kind: k.Kind + "List", APIVersion: k.GroupVersion().String()},
		metav1.ListMeta{ResourceVersion: strconv.FormatUint(version, 10)},
		objects,
	})
	return nil
}

// matcher parses selectors. Of the fields only the two that every kind has are
// known.
func matcher(labelSelector, fieldSelector string) (func(Object) bool, error) {
	byLabel, err := labels.Parse(labelSelector)
	if err != nil {
		return nil, err
	}
	byField, err := fields.ParseSelector(fieldSelector)
	if err != nil {
		return nil, err
	}
	for _, term := range byField.Requirements() {
		if term.Field != "metadata.name" && term.Field != "metadata.namespace" {
			return nil, fmt.Errorf("field label not supported: %s", term.Field)
		}
	}
	return func(o Object) bool {
		return byLabel.Matches(labels.Set(o.GetLabels())) &&
			byField.Matches(fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()})
	}, nil
}

// parseRequest reads path and method as RBAC does: a resource below /api/v1 or
// /apis/GROUP/VERSION, or merely a path.
func parseRequest(r *http.Request) *Request {
	q := &Request{Verb: strings.ToLower(r.Method), Path: r.URL.Path, Upgrade: r.Header.Get("Upgrade")}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2 && parts[1] == "v1":
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		q.Group, parts = parts[1], parts[3:]
	default:
		return q
	}
	if parts[0] == "namespaces" && len(parts) > 1 {
		q.Namespace = parts[1]
		if len(parts) > 2 {
			parts = parts[2:]
		}
	}
	parts = append(parts, "", "")
	q.Resource, q.Name, q.Subresource = parts[0], parts[1], parts[2]
	query := r.URL.Query()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		q.Verb = "get"
		if q.Name == "" {
			q.Verb = "list"
			if watching, _ := strconv.ParseBool(query.Get("watch")); watching {
				q.Verb = "watch"
			}
			q.Name = selectedName(query)
		}
	case http.MethodPost:
		q.Verb = "create"
	case http.MethodPut:
		q.Verb = "update"
	case http.MethodDelete:
		if q.Name == "" {
			q.Verb = "deletecollection"
		}
	}
	return q
}

// selectedName is the name that RBAC sees in a list of one.
func selectedName(query url.Values) string {
	selector, err := fields.ParseSelector(query.Get("fieldSelector"))
	if err != nil {
		return ""
	}
	name, _ := selector.RequiresExactMatch("metadata.name")
	return name
}

// namespaceOf is where objects of the kind are looked for: a Namespace is its
// own namespace in requests, but lies in none.
func (q *Request) namespaceOf(k *kind) string {
	if !k.namespaced {
		return ""
	}
	return q.Namespace
}

// acceptsJSON refuses clients that can read nothing else than what we cannot
// write.
func acceptsJSON(r *http.Request) error {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if accept == "" {
		return nil
	}
	for _, wanted := range strings.Split(accept, ",") {
		media, params, err := mime.ParseMediaType(wanted)
		if err != nil || params["as"] != "" {
			continue
		}
		switch media {
		case "application/json", "application/*", "*/*":
			return nil
		}
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusNotAcceptable,
		Reason:  metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: application/json",
	}}
}

// decodeBody reads JSON, and protobuf for the sake of clients that are
// configured for it: the server cannot ask them for another encoding.
func decodeBody(r *http.Request, into any) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, 3<<20))
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if len(body) == 0 {
		return nil
	}
	if raw, ok := strings.CutPrefix(string(body), "k8s\x00"); ok {
		envelope := new(runtime.Unknown)
		message, known := into.(interface{ Unmarshal([]byte) error })
		if err = envelope.Unmarshal([]byte(raw)); err == nil && known {
			err = message.Unmarshal(envelope.Raw)
		}
	} else {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func respond(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(o)
}

func respondError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	respond(w, int(status.Code), status)
}

// statusOf puts an error into the API's words; what has none is the server's
// fault.
func statusOf(err error) *metav1.Status {
	status := metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInternalServerError,
		Reason:  metav1.StatusReasonUnknown,
		Message: err.Error(),
	}
	if known := apierrors.APIStatus(nil); errors.As(err, &known) {
		status = known.Status()
	}
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &status
}
