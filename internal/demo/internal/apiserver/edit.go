package apiserver

import (
	"encoding/json"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The few changes that clients may make, so that a user can play with the demo
// by kubectl: delete a pod, scale, and patch a workload ("kubectl rollout
// restart").

func (s *Server) serveDeletePod(w http.ResponseWriter, r *http.Request, q *Request) error {
	var options metav1.DeleteOptions
	if err := decodeBody(r, &options); err != nil {
		return err
	}
	query := r.URL.Query()
	if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&query, &options, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	grace := time.Duration(-1)
	if options.GracePeriodSeconds != nil && *options.GracePeriodSeconds == 0 {
		grace = 0
	}
	pod, err := s.options.Controllers.DeletePod(q.Namespace, q.Name, grace)
	if err != nil {
		return err
	}
	respond(w, http.StatusOK, pod)
	return nil
}

func (s *Server) serveScale(w http.ResponseWriter, r *http.Request, k *kind, q *Request) error {
	o := s.Store.Get(k.resource, q.Namespace, q.Name)
	if o == nil {
		return apierrors.NewNotFound(k.groupResource(), q.Name)
	}
	scale := scaleOf(o)
	switch q.Verb {
	case "get":
	case "update", "patch":
		// A patch of a Scale has nothing to merge: it is decoded over what is
		// there.
		if err := decodeBody(r, scale); err != nil {
			return err
		}
		patch := map[string]any{"spec": map[string]any{"replicas": scale.Spec.Replicas}}
		if err := s.patch(k, q, patch); err != nil {
			return err
		}
		scale = scaleOf(s.Store.Get(k.resource, q.Namespace, q.Name))
	default:
		return apierrors.NewMethodNotSupported(k.groupResource(), q.Verb)
	}
	respond(w, http.StatusOK, scale)
	return nil
}

func scaleOf(o Object) *autoscalingv1.Scale {
	scale := &autoscalingv1.Scale{
		TypeMeta: metav1.TypeMeta{Kind: "Scale", APIVersion: autoscalingv1.SchemeGroupVersion.String()},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
			ResourceVersion: o.GetResourceVersion(), CreationTimestamp: o.GetCreationTimestamp(),
		},
	}
	var selector *metav1.LabelSelector
	switch o := o.(type) {
	case *appsv1.Deployment:
		scale.Spec.Replicas, scale.Status.Replicas, selector = *o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector
	case *appsv1.StatefulSet:
		scale.Spec.Replicas, scale.Status.Replicas, selector = *o.Spec.Replicas, o.Status.Replicas, o.Spec.Selector
	}
	scale.Status.Selector = metav1.FormatLabelSelector(selector)
	return scale
}

func (s *Server) servePatch(w http.ResponseWriter, r *http.Request, k *kind, q *Request) error {
	var patch map[string]any
	if err := decodeBody(r, &patch); err != nil {
		return err
	}
	if err := s.patch(k, q, patch); err != nil {
		return err
	}
	respond(w, http.StatusOK, s.Store.Get(k.resource, q.Namespace, q.Name))
	return nil
}

// patch merges a patch into a workload, by RFC 7386. A strategic merge patch
// would treat lists better; those of kubectl's commands contain none.
func (s *Server) patch(k *kind, q *Request, patch map[string]any) error {
	if s.Store.Get(k.resource, q.Namespace, q.Name) == nil {
		return apierrors.NewNotFound(k.groupResource(), q.Name)
	}
	return s.options.Controllers.Update(k.resource, q.Namespace, q.Name, func(now Object) (Object, error) {
		var document map[string]any
		text, err := json.Marshal(now)
		if err == nil {
			err = json.Unmarshal(text, &document)
		}
		if err == nil {
			text, err = json.Marshal(merge(document, patch))
		}
		edited := k.blank()
		if err == nil {
			err = json.Unmarshal(text, edited)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return edited, nil
	})
}

func merge(into, patch map[string]any) map[string]any {
	if into == nil {
		into = map[string]any{}
	}
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(into, key)
		case map[string]any:
			old, _ := into[key].(map[string]any)
			into[key] = merge(old, value)
		default:
			into[key] = value
		}
	}
	return into
}
