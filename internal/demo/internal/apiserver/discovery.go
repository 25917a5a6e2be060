package apiserver

import (
	"io"
	"net/http"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// servePublic answers what needs no credentials, and reports whether it did.
func (s *Server) servePublic(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/readyz", "/livez", "/healthz":
		io.WriteString(w, "ok")
	case "/version":
		respond(w, http.StatusOK, version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+tunneld-demo"})
	default:
		return false
	}
	return true
}

// serveDiscovery tells which groups and resources there are: enough for
// kubectl to get, scale and delete.
func (s *Server) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	path := strings.Trim(r.URL.Path, "/")
	switch path {
	case "api":
		respond(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return
	case "apis":
		list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, gv := range s.groupVersions()[1:] {
			list.Groups = append(list.Groups, apiGroup(gv))
		}
		respond(w, http.StatusOK, list)
		return
	}
	for _, gv := range s.groupVersions() {
		switch path {
		case "apis/" + gv.Group:
			group := apiGroup(gv)
			group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			respond(w, http.StatusOK, group)
			return
		case "api/" + gv.String(), "apis/" + gv.String():
			respond(w, http.StatusOK, s.resources(gv))
			return
		}
	}
	http.NotFound(w, r)
}

// groupVersions starts with the core group.
func (s *Server) groupVersions() []schema.GroupVersion {
	var found []schema.GroupVersion
	for _, k := range s.kinds {
		if !slices.Contains(found, k.GroupVersion()) {
			found = append(found, k.GroupVersion())
		}
	}
	return append(found, authorizationv1.SchemeGroupVersion)
}

func apiGroup(gv schema.GroupVersion) metav1.APIGroup {
	v := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	return metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v}
}

func (s *Server) resources(gv schema.GroupVersion) metav1.APIResourceList {
	list := metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: gv.String(),
	}
	add := func(r metav1.APIResource) { list.APIResources = append(list.APIResources, r) }
	for _, k := range s.kinds {
		if k.GroupVersion() != gv {
			continue
		}
		r := metav1.APIResource{
			Name: k.resource, SingularName: k.singular, Namespaced: k.namespaced, Kind: k.Kind,
			Verbs: append([]string{"get", "list", "watch"}, k.verbs...),
		}
		if k.short != "" {
			r.ShortNames = []string{k.short}
		}
		add(r)
		if k.resource == "pods" {
			add(metav1.APIResource{Name: "pods/portforward", Namespaced: true, Kind: "PodPortForwardOptions", Verbs: []string{"create", "get"}})
		}
		if k.scale {
			add(metav1.APIResource{
				Name: k.resource + "/scale", Namespaced: true, Verbs: []string{"get", "patch", "update"},
				Group: autoscalingv1.GroupName, Version: "v1", Kind: "Scale",
			})
		}
	}
	if gv == authorizationv1.SchemeGroupVersion {
		add(metav1.APIResource{Name: "selfsubjectaccessreviews", Kind: "SelfSubjectAccessReview", Verbs: []string{"create"}})
	}
	return list
}
