package demo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/tunneld/tunneld/internal/demo/internal/apiserver"
	"github.com/tunneld/tunneld/internal/demo/internal/node"
)

// control runs the cluster's controllers on one goroutine: whatever changes
// objects is done there, and afterwards everything is reconciled until nothing
// is left to do. What needs time has an appointment.
type control struct {
	c        *Cluster
	commands chan func()
	closing  chan struct{}
	done     chan struct{}
	once     sync.Once

	// Only the goroutine touches these.
	apps         map[workload]App
	appointments []appointment // in the order of their times
	podIPs       int
	serviceIPs   int
}

// A workload is a Deployment or StatefulSet.
type workload struct {
	resource string
	key      types.NamespacedName
}

type appointment struct {
	at time.Time
	do func() error
}

func newControl(c *Cluster) *control {
	return &control{
		c:        c,
		commands: make(chan func()),
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
		apps:     map[workload]App{},
	}
}

func (t *control) start() { go t.loop() }

func (t *control) stop() {
	t.once.Do(func() { close(t.closing) })
	<-t.done
}

func (t *control) loop() {
	defer close(t.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if len(t.appointments) > 0 {
			timer.Reset(time.Until(t.appointments[0].at))
			due = timer.C
		}
		select {
		case command := <-t.commands:
			command()
		case <-due:
			next := t.appointments[0]
			t.appointments = t.appointments[1:]
			if err := errors.Join(next.do(), t.reconcile()); err != nil {
				t.c.log.Error("the demo cluster's controller failed", "err", err)
			}
		case <-t.closing:
			return
		}
	}
}

// do has f done by the controllers' goroutine, and then what follows from it.
func (t *control) do(f func() error) error {
	result := make(chan error, 1)
	command := func() {
		err := f()
		result <- errors.Join(err, t.reconcile())
	}
	select {
	case t.commands <- command:
		return <-result
	case <-t.closing:
		return ErrClosed
	}
}

// after makes an appointment.
func (t *control) after(d time.Duration, do func() error) {
	at := time.Now().Add(d)
	i, _ := slices.BinarySearchFunc(t.appointments, at, func(a appointment, at time.Time) int {
		return cmp.Or(a.at.Compare(at), -1) // behind those of the same time
	})
	t.appointments = slices.Insert(t.appointments, i, appointment{at, do})
}

// reconcile does what follows from the objects as they are.
func (t *control) reconcile() error {
	for busy := true; busy; {
		busy = false
		for _, resource := range []string{"deployments", "statefulsets"} {
			workloads, _ := t.c.store.List(resource, "", apiserver.All)
			for _, o := range workloads {
				var acted bool
				var err error
				switch o := o.(type) {
				case *appsv1.Deployment:
					acted, err = t.reconcileDeployment(o)
				case *appsv1.StatefulSet:
					acted, err = t.reconcileStatefulSet(o)
				}
				if err != nil {
					return err
				}
				busy = busy || acted
			}
		}
	}
	t.reconcileSlices()
	return nil
}

// Update implements apiserver.Controllers.
func (t *control) Update(resource, namespace, name string, edit func(apiserver.Object) (apiserver.Object, error)) error {
	return t.do(func() error {
		o := t.c.store.Get(resource, namespace, name)
		if o == nil {
			return fmt.Errorf("no %s %s/%s", resource, namespace, name)
		}
		o, err := edit(o)
		if err != nil {
			return err
		}
		return t.put(o)
	})
}

// DeletePod implements apiserver.Controllers.
func (t *control) DeletePod(namespace, name string, grace time.Duration) (apiserver.Object, error) {
	var last apiserver.Object
	err := t.do(func() error {
		p, ok := t.c.store.Get("pods", namespace, name).(*corev1.Pod)
		if !ok {
			return apierrors.NewNotFound(corev1.Resource("pods"), name)
		}
		last = t.terminate(p, grace)
		return nil
	})
	return last, err
}

// change edits replicas and template of a workload.
func (t *control) change(namespace, name string, edit func(*int32, *corev1.PodTemplateSpec)) error {
	return t.do(func() error {
		o, err := t.find(namespace, name)
		if err != nil {
			return err
		}
		o = o.DeepCopyObject().(apiserver.Object)
		switch o := o.(type) {
		case *appsv1.Deployment:
			edit(o.Spec.Replicas, &o.Spec.Template)
		case *appsv1.StatefulSet:
			edit(o.Spec.Replicas, &o.Spec.Template)
		}
		return t.put(o)
	})
}

// find returns a workload; a Deployment if both kinds have the name.
func (t *control) find(namespace, name string) (apiserver.Object, error) {
	for _, resource := range []string{"deployments", "statefulsets"} {
		if o := t.c.store.Get(resource, namespace, name); o != nil {
			return o, nil
		}
	}
	return nil, fmt.Errorf("%w: %s/%s", errNoWorkload, namespace, name)
}

// rolled reports whether a workload has the pods it should have and no others.
func (t *control) rolled(namespace, name string) (bool, error) {
	o, err := t.find(namespace, name)
	if err != nil {
		return false, err
	}
	switch o := o.(type) {
	case *appsv1.Deployment:
		s := o.Status
		return s.ObservedGeneration == o.Generation && s.UpdatedReplicas == *o.Spec.Replicas &&
			s.ReadyReplicas == s.UpdatedReplicas && s.Replicas == s.UpdatedReplicas && (s.TerminatingReplicas == nil || *s.TerminatingReplicas == 0), nil
	case *appsv1.StatefulSet:
		s := o.Status
		return s.ObservedGeneration == o.Generation && s.UpdatedReplicas == *o.Spec.Replicas &&
			s.ReadyReplicas == s.UpdatedReplicas && s.Replicas == s.UpdatedReplicas, nil
	}
	return true, nil
}

// put stores an object as a user would, with the defaults that the API server
// fills in.
func (t *control) put(obj runtime.Object) error {
	resource, o, err := t.c.api.Recognise(obj)
	if err != nil {
		return err
	}
	old := t.c.store.Get(resource, o.GetNamespace(), o.GetName())
	t.setDefaults(o, old)
	if o.GetNamespace() != "" && t.c.store.Get("namespaces", "", o.GetNamespace()) == nil {
		if err := t.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: o.GetNamespace()}}); err != nil {
			return err
		}
	}
	t.c.store.Put(resource, o)
	return nil
}

// Apply creates or replaces an object of any kind the cluster knows: a
// Namespace, Service, EndpointSlice, Pod, Deployment or StatefulSet. Its
// namespace is created if need be. Deployments and StatefulSets get pods with
// the default program; a Pod that is applied runs nothing.
func (c *Cluster) Apply(objects ...runtime.Object) error {
	return c.control.do(func() error {
		for _, o := range objects {
			if err := c.control.put(o); err != nil {
				return fmt.Errorf("apply: %w", err)
			}
		}
		return nil
	})
}

// Delete deletes an object of that kind and name. What belongs to it goes too:
// a workload's pods and a Service's EndpointSlices; but not what is in a
// namespace. A pod is killed without grace; see DeletePod.
func (c *Cluster) Delete(obj runtime.Object) error {
	return c.control.do(func() error {
		resource, o, err := c.api.Recognise(obj)
		if err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		if pod, ok := c.store.Get(resource, o.GetNamespace(), o.GetName()).(*corev1.Pod); ok {
			c.control.end(pod, node.Lost)
			return nil
		}
		gone := c.store.Remove(resource, apiserver.KeyOf(o))
		if gone == nil {
			return fmt.Errorf("delete: no %s %s", resource, apiserver.KeyOf(o))
		}
		c.control.endAll(o.GetNamespace(), ownedBy(gone))
		return nil
	})
}
