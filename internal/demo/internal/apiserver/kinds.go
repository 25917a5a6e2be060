package apiserver

import (
	"fmt"
	"reflect"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A kind is a kind of object that the API server knows.
type kind struct {
	schema.GroupVersionKind
	resource   string
	singular   string
	short      string
	namespaced bool
	verbs      []string // besides get, list and watch
	scale      bool     // has the scale subresource
	blank      func() Object
}

func kinds() []*kind {
	core := schema.GroupVersion{Version: "v1"}
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	return []*kind{
		{core.WithKind("Namespace"), "namespaces", "namespace", "ns", false, nil, false, func() Object { return new(corev1.Namespace) }},
		{core.WithKind("Pod"), "pods", "pod", "po", true, []string{"delete"}, false, func() Object { return new(corev1.Pod) }},
		{core.WithKind("Service"), "services", "service", "svc", true, nil, false, func() Object { return new(corev1.Service) }},
		{apps.WithKind("Deployment"), "deployments", "deployment", "deploy", true, []string{"patch"}, true, func() Object { return new(appsv1.Deployment) }},
		{apps.WithKind("StatefulSet"), "statefulsets", "statefulset", "sts", true, []string{"patch"}, true, func() Object { return new(appsv1.StatefulSet) }},
		{discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), "endpointslices", "endpointslice", "", true, nil, false, func() Object { return new(discoveryv1.EndpointSlice) }},
	}
}

func (k *kind) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.resource}
}

// settle gives the object its kind, and its namespace if it should have one.
func (k *kind) settle(o Object) {
	o.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	switch {
	case !k.namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(metav1.NamespaceDefault)
	}
}

func (s *Server) kindByResource(group, resource string) *kind {
	for _, k := range s.kinds {
		if k.Group == group && k.resource == resource {
			return k
		}
	}
	return nil
}

// Recognise returns a copy of an object with kind and namespace filled in, and
// the name of its resource. Typed objects seldom say their kind: the Go type
// tells.
func (s *Server) Recognise(obj runtime.Object) (resource string, o Object, err error) {
	o, ok := obj.(Object)
	if ok {
		for _, k := range s.kinds {
			if reflect.TypeOf(k.blank()) == reflect.TypeOf(obj) {
				o = o.DeepCopyObject().(Object)
				k.settle(o)
				return k.resource, o, nil
			}
		}
	}
	return "", nil, fmt.Errorf("the demo cluster stores no %T", obj)
}
