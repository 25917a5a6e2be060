package demo_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// reflect keeps a store of an API resource up to date until the test ends.
func reflect(t *testing.T, rc *rest.RESTClient, namespace string) cache.Store {
	t.Helper()
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	lw := cache.NewListWatchFromClient(rc, "pods", namespace, fields.Everything())
	r := cache.NewReflectorWithOptions(lw, &corev1.Pod{}, store, cache.ReflectorOptions{
		Backoff: &wait.Backoff{Duration: 10 * time.Millisecond, Steps: 1},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.RunWithContext(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return store
}

func TestReflector(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		old       bool
		protocols []string
	}{
		{"watch list", false, nil},
		{"watch list over HTTP/1.1", false, []string{"http/1.1"}},
		{"old server", true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, demo.Options{OldServer: tt.old}, sample()...)
			config := c.RESTConfig()
			config.NextProtos = tt.protocols
			store := reflect(t, clientFor(t, config, "", "v1"), "task-api")
			has := func(n int) func() bool {
				return func() bool {
					return len(store.List()) == n && slices.Equal(slices.Sorted(slices.Values(store.ListKeys())), podKeys(c))
				}
			}
			await.Until(t, "the first list", has(4))
			if err := c.Scale("task-api", "task-api", 5); err != nil {
				t.Fatal(err)
			}
			await.Until(t, "new pods", has(7))
			c.CutWatches()
			if err := c.Scale("task-api", "task-api", 1); err != nil {
				t.Fatal(err)
			}
			await.Until(t, "fewer pods after a broken watch", has(3))
			if err := c.RestartAPI(); err != nil {
				t.Fatal(err)
			}
			if err := c.Scale("task-api", "task-db", 1); err != nil {
				t.Fatal(err)
			}
			await.Until(t, "fewer pods after a restart", has(2))
			c.StopAPI()
			c.Scale("task-api", "task-db", 3)
			c.ForgetHistory()
			if err := c.StartAPI(); err != nil {
				t.Fatal(err)
			}
			await.Until(t, "more pods, though history is lost", has(4))

			lists := 0
			for _, q := range c.Requests() {
				if q.Verb == "list" {
					lists++
				}
			}
			if (lists > 0) != tt.old {
				t.Errorf("the client made %d lists of its own", lists)
			}
		})
	}
}

// podKeys are those of the sample's namespace.
func podKeys(c *demo.Cluster) []string {
	var keys []string
	for _, app := range []string{"task-api", "task-db"} {
		for _, p := range c.Pods("task-api", app) {
			keys = append(keys, "task-api/"+p)
		}
	}
	slices.Sort(keys)
	return keys
}

// A watched event, short enough to compare.
func events(t *testing.T, w watch.Interface, n int) []string {
	t.Helper()
	var got []string
	for len(got) < n {
		e, ok := <-w.ResultChan()
		if !ok {
			got = append(got, "END")
			break
		}
		switch o := e.Object.(type) {
		case *metav1.Status:
			got = append(got, fmt.Sprintf("%s %d %s", e.Type, o.Code, o.Reason))
		case metav1.Object:
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s", e.Type, o.GetName())))
		}
	}
	return got
}

func service(name string, labels map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		options demo.Options
		query   map[string]string
		act     func(c *demo.Cluster)
		want    []string
	}{
		{"list first, as ever", demo.Options{}, nil, nil,
			[]string{"ADDED a", "ADDED b"}},
		{"list first, with its end", demo.Options{},
			map[string]string{"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}, nil,
			[]string{"ADDED a", "ADDED b", "BOOKMARK"}},
		{"from a version on", demo.Options{}, map[string]string{"resourceVersion": "NOW"},
			func(c *demo.Cluster) {
				c.Apply(service("a", map[string]string{"x": "1"}), service("c", nil))
				c.Delete(service("b", nil))
			},
			[]string{"MODIFIED a", "ADDED c", "DELETED b"}},
		{"too old", demo.Options{}, map[string]string{"resourceVersion": "1"}, nil,
			[]string{"ERROR 410 Expired", "END"}},
		{"history overrun", demo.Options{History: 2}, map[string]string{"resourceVersion": "NOW"},
			func(c *demo.Cluster) {
				c.Apply(service("c", nil), service("d", nil), service("e", nil))
			},
			[]string{"ERROR 410 Expired", "END"}},
		{"entering and leaving a selection", demo.Options{}, map[string]string{"labelSelector": "x=1"},
			func(c *demo.Cluster) {
				c.Apply(service("b", nil))
				c.Apply(service("a", map[string]string{"x": "1"}))
				c.Apply(service("a", map[string]string{"x": "1", "y": "2"}))
				c.Apply(service("a", nil))
				c.Apply(service("c", map[string]string{"x": "1"}))
			},
			[]string{"ADDED a", "MODIFIED a", "DELETED a", "ADDED c"}},
		{"one object", demo.Options{}, map[string]string{"fieldSelector": "metadata.name=b"},
			func(c *demo.Cluster) {
				c.Apply(service("c", nil))
				c.Delete(service("b", nil))
			},
			[]string{"ADDED b", "DELETED b"}},
		{"bookmarks", demo.Options{Bookmarks: time.Millisecond}, map[string]string{"resourceVersion": "NOW", "allowWatchBookmarks": "true"}, nil,
			[]string{"BOOKMARK", "BOOKMARK"}},
		{"timeout", demo.Options{}, map[string]string{"resourceVersion": "NOW", "timeoutSeconds": "1"}, nil,
			[]string{"END"}},
		{"nothing new", demo.Options{}, map[string]string{"resourceVersion": "NOW"},
			func(c *demo.Cluster) {
				c.Apply(service("a", nil))
				c.Apply(service("c", nil))
			},
			[]string{"ADDED c"}},
		{"cut", demo.Options{}, map[string]string{"resourceVersion": "NOW"},
			func(c *demo.Cluster) { c.CutWatches() },
			[]string{"ERROR 500 InternalError", "END"}}, // client-go's words for a broken stream
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := start(t, tt.options)
			if err := c.Apply(service("a", nil), service("b", nil)); err != nil {
				t.Fatal(err)
			}
			rc := client(t, c)
			r := rc.Get().Namespace("shop").Resource("services").Param("watch", "true")
			for name, value := range tt.query {
				if value == "NOW" {
					list := new(corev1.ServiceList)
					if err := rc.Get().Resource("services").Do(t.Context()).Into(list); err != nil {
						t.Fatal(err)
					}
					value = list.ResourceVersion
				}
				r.Param(name, value)
			}
			if tt.name == "history overrun" { // between list and watch
				tt.act(c)
			}
			w, err := r.Watch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			if tt.act != nil {
				tt.act(c)
			}
			if diff := cmp.Diff(tt.want, events(t, w, len(tt.want))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWatchListRefusedByOldServer(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{OldServer: true})
	_, err := client(t, c).Get().Resource("pods").Param("watch", "true").
		Param("sendInitialEvents", "true").Param("resourceVersionMatch", "NotOlderThan").Watch(t.Context())
	if !apierrors.IsInvalid(err) {
		t.Fatalf("got %v; want 422 Invalid", err)
	}
	wantIn(t, err.Error(), "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled")
}

func TestList(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	c.Apply(service("elsewhere", nil))
	rc := client(t, c)
	names := func(r *rest.Request) []string {
		list := new(corev1.ServiceList)
		if err := r.Resource("services").Do(t.Context()).Into(list); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list.Items {
			names = append(names, s.Namespace+"/"+s.Name)
		}
		return names
	}
	tests := []struct {
		name string
		r    *rest.Request
		want []string
	}{
		{"cluster-wide", rc.Get(), []string{"shop/elsewhere", "task-api/task-api", "task-api/task-db", "task-api/task-empty", "task-api/task-tcp"}},
		{"namespaced", rc.Get().Namespace("shop"), []string{"shop/elsewhere"}},
		{"by label", rc.Get().Param("labelSelector", "app=task-api"), []string{"task-api/task-api", "task-api/task-tcp"}},
		{"by name", rc.Get().Param("fieldSelector", "metadata.name=task-db,metadata.namespace=task-api"), []string{"task-api/task-db"}},
		{"nothing", rc.Get().Namespace("void"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, names(tt.r)); diff != "" {
				t.Errorf("services (-want +got):\n%s", diff)
			}
		})
	}
}

// Clients that prefer protobuf are answered in JSON, and may send protobuf.
func TestProtobufClient(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	config := c.RESTConfig()
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	rc := clientFor(t, config, "", "v1")
	pod := new(corev1.Pod)
	if err := rc.Get().Namespace("task-api").Resource("pods").Name("task-db-0").Do(t.Context()).Into(pod); err != nil || pod.Status.PodIP == "" {
		t.Errorf("get: %v, %q", err, pod.Status.PodIP)
	}
	w, err := rc.Get().Namespace("task-api").Resource("pods").Param("watch", "true").Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added {
		t.Errorf("watch: %v", e)
	}
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: "task-api"},
	}}
	c.Forbid(demo.Rule{Verb: "create", Resource: "pods", Subresource: "portforward"})
	arc := clientFor(t, config, authorizationv1.GroupName, "v1")
	if err := arc.Post().Resource("selfsubjectaccessreviews").Body(review).Do(t.Context()).Into(review); err != nil || review.Status.Allowed {
		t.Errorf("review: %v, allowed %v", err, review.Status.Allowed)
	}

	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf"
	_, err = clientFor(t, config, "", "v1").Get().Resource("pods").DoRaw(t.Context())
	if !apierrors.IsNotAcceptable(err) {
		t.Errorf("protobuf only: %v; want 406", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	undo := c.Forbid(demo.Rule{Verb: "list", Resource: "pods", Namespace: "task-api"})
	c.Forbid(demo.Rule{Verb: "*", Resource: "namespaces"})
	rc := client(t, c)
	tests := []struct {
		name, path string
		code       int32
		reason     metav1.StatusReason
		message    string
	}{
		{"no such pod", "/api/v1/namespaces/task-api/pods/x", 404, metav1.StatusReasonNotFound, `pods "x" not found`},
		{"no such deployment", "/apis/apps/v1/namespaces/task-api/deployments/x", 404, metav1.StatusReasonNotFound, `deployments.apps "x" not found`},
		{"no such resource", "/api/v1/secrets", 404, metav1.StatusReasonNotFound, "the server could not find the requested resource"},
		{"forbidden", "/api/v1/namespaces/task-api/pods", 403, metav1.StatusReasonForbidden,
			`pods is forbidden: User "demo" cannot list resource "pods" in API group "" in the namespace "task-api"`},
		{"forbidden at cluster scope", "/api/v1/namespaces", 403, metav1.StatusReasonForbidden,
			`namespaces is forbidden: User "demo" cannot list resource "namespaces" in API group "" at the cluster scope`},
		{"unknown field", "/api/v1/pods?fieldSelector=spec.x%3D1", 400, metav1.StatusReasonBadRequest, "field label not supported: spec.x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := rc.Get().RequestURI(tt.path).Do(t.Context()).Error()
			status, ok := err.(apierrors.APIStatus)
			if !ok {
				t.Fatalf("got %v; want a status", err)
			}
			s := status.Status()
			if s.Code != tt.code || s.Reason != tt.reason || s.Message != tt.message {
				t.Errorf("got %d %s %q; want %d %s %q", s.Code, s.Reason, s.Message, tt.code, tt.reason, tt.message)
			}
		})
	}
	undo()
	if _, err := rc.Get().RequestURI("/api/v1/namespaces/task-api/pods").DoRaw(t.Context()); err != nil {
		t.Errorf("after undo: %v", err)
	}
	if _, err := rc.Get().RequestURI("/api/v1/pods").DoRaw(t.Context()); err != nil {
		t.Errorf("another scope: %v", err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	get := func(config *rest.Config) error {
		return clientFor(t, config, "", "v1").Get().Resource("pods").Do(t.Context()).Error()
	}
	first := c.RESTConfig()
	if err := get(first); err != nil {
		t.Fatal(err)
	}
	f := mustForward(t, c, "WebSocket", "task-api", "task-db-0")
	c.ExpireTokens()
	if err := get(first); !apierrors.IsUnauthorized(err) || err.Error() != "Unauthorized" {
		t.Errorf("expired: %v; want 401", err)
	}
	for _, protocol := range protocols {
		if _, err := dialForward(first, protocol, "task-api", "task-db-0"); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
			t.Errorf("port-forward by %s: %v; want Unauthorized", protocol, err)
		}
	}
	data, _ := f.mustOpen(t, demo.EchoPort)
	if err := echo(data, "upgraded connections outlive their token"); err != nil {
		t.Error(err)
	}
	c.IssueToken("somebody")
	if err := get(c.RESTConfig()); err != nil {
		t.Errorf("new token: %v", err)
	}
	if err := get(first); !apierrors.IsUnauthorized(err) {
		t.Errorf("old token: %v; want 401", err)
	}
	last := c.Requests()
	if q := last[len(last)-2]; q.User != "somebody" || q.String() != "list pods " {
		t.Errorf("recorded %+v", q)
	}
	readyz := func(config *rest.Config) error {
		res, err := clientFor(t, config, "", "v1").Get().RequestURI("/readyz").DoRaw(t.Context())
		if err == nil && string(res) != "ok" {
			err = fmt.Errorf("%q", res)
		}
		return err
	}
	if err := readyz(first); !apierrors.IsUnauthorized(err) {
		t.Errorf("readyz with an old token: %v; want 401: what is presented is verified", err)
	}
	if err := readyz(rest.AnonymousClientConfig(first)); err != nil {
		t.Errorf("readyz needs no token: %v", err)
	}
}

func TestReview(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{})
	c.Forbid(demo.Rule{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: "secret"})
	rc := clientFor(t, c.RESTConfig(), authorizationv1.GroupName, "v1")
	tests := []struct {
		name  string
		asked authorizationv1.ResourceAttributes
		want  bool
	}{
		{"forbidden", authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: "secret"}, false},
		{"other verb", authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Subresource: "portforward", Namespace: "secret"}, true},
		{"the resource itself", authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Namespace: "secret"}, true},
		{"other namespace", authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Subresource: "portforward", Namespace: "x"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &tt.asked}}
			if err := rc.Post().Resource("selfsubjectaccessreviews").Body(review).Do(t.Context()).Into(review); err != nil {
				t.Fatal(err)
			}
			if review.Status.Allowed != tt.want {
				t.Errorf("allowed %v; want %v", review.Status.Allowed, tt.want)
			}
		})
	}
}

// kubectl's ways to change what it may change.
func TestEdits(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	rc := clientFor(t, c.RESTConfig(), "apps", "v1")
	scale := rc.Patch("application/merge-patch+json").Namespace("task-api").Resource("deployments").Name("task-api").SubResource("scale")
	if err := scale.Body([]byte(`{"spec":{"replicas":3}}`)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	if n := len(c.Pods("task-api", "task-api")); n != 3 {
		t.Errorf("%d pods; want 3", n)
	}
	before := c.Pods("task-api", "task-api")
	restart := rc.Patch("application/strategic-merge-patch+json").Namespace("task-api").Resource("deployments").Name("task-api")
	if err := restart.Body([]byte(`{"spec":{"template":{"metadata":{"annotations":{"restartedAt":"now"}}}}}`)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "new pods", func() bool {
		pods := c.Pods("task-api", "task-api")
		return len(pods) == 3 && !slices.ContainsFunc(pods, func(p string) bool { return slices.Contains(before, p) })
	})
	uid := c.PodUID("task-api", "task-db-0")
	deleted := new(corev1.Pod)
	if err := client(t, c).Delete().Namespace("task-api").Resource("pods").Name("task-db-0").Do(t.Context()).Into(deleted); err != nil {
		t.Fatal(err)
	}
	if deleted.DeletionTimestamp == nil {
		t.Error("the deleted pod has no deletionTimestamp")
	}
	await.Until(t, "another pod of the name", func() bool {
		now := c.PodUID("task-api", "task-db-0")
		return now != "" && now != uid
	})
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{})
	rc := client(t, c)
	for _, gv := range []string{"/api/v1", "/apis/apps/v1", "/apis/discovery.k8s.io/v1", "/apis/authorization.k8s.io/v1"} {
		text, err := rc.Get().RequestURI(gv).DoRaw(t.Context())
		list := new(metav1.APIResourceList)
		if err == nil {
			err = json.Unmarshal(text, list)
		}
		if err != nil || list.Kind != "APIResourceList" || len(list.APIResources) == 0 {
			t.Errorf("%s: %v, %+v", gv, err, list)
		}
	}
	groups := new(metav1.APIGroupList)
	text, err := rc.Get().RequestURI("/apis").DoRaw(t.Context())
	if err == nil {
		err = json.Unmarshal(text, groups)
	}
	if err != nil || len(groups.Groups) != 3 || groups.Groups[0].PreferredVersion.GroupVersion != "apps/v1" {
		t.Errorf("groups: %v, %+v", err, groups)
	}
}

// The record proves what a client did and did not do.
func TestRequests(t *testing.T) {
	t.Parallel()
	c := start(t, demo.Options{}, sample()...)
	c.ForgetRequests()
	rc := client(t, c)
	rc.Get().Namespace("task-api").Resource("services").Name("task-api").Do(t.Context())
	clientFor(t, c.RESTConfig(), discoveryv1.GroupName, "v1").Get().Namespace("task-api").Resource("endpointslices").
		Param("fieldSelector", "metadata.name=x").Do(t.Context())
	mustForward(t, c, "WebSocket", "task-api", "task-db-0")
	mustForward(t, c, "SPDY", "task-api", "task-db-1")
	http.Get(c.URL()) // fails to verify the certificate, and is no request
	var got []string
	for _, q := range c.Requests() {
		got = append(got, q.User+" "+q.String()+" "+q.Upgrade)
	}
	want := []string{
		"demo get services task-api/task-api ",
		"demo list endpointslices task-api/x ",
		"demo get pods/portforward task-api/task-db-0 websocket",
		"demo create pods/portforward task-api/task-db-1 SPDY/3.1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
