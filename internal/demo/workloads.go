package demo

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/tunneld/tunneld/internal/demo/internal/apiserver"
	"github.com/tunneld/tunneld/internal/demo/internal/node"
)

// A fleet is a workload's pods, sorted by what the controllers ask about.
type fleet struct {
	fresh, stale []*corev1.Pod // of the current template, and of older ones
	leaving      []*corev1.Pod
	ready        int // of fresh and stale
	freshReady   int
}

// fleetOf counts the pods of a workload whose current template has that hash.
func (t *control) fleetOf(owner apiserver.Object, hash string) fleet {
	var f fleet
	pods, _ := t.c.store.List("pods", owner.GetNamespace(), ownedBy(owner))
	for _, o := range pods {
		p := o.(*corev1.Pod)
		switch {
		case p.DeletionTimestamp != nil:
			f.leaving = append(f.leaving, p)
			continue
		case revisionOf(p) == hash:
			f.fresh = append(f.fresh, p)
			if isReady(p) {
				f.freshReady++
			}
		default:
			f.stale = append(f.stale, p)
		}
		if isReady(p) {
			f.ready++
		}
	}
	return f
}

// victim chooses whom to stop: one that is not ready, else the youngest.
func victim(pods []*corev1.Pod) *corev1.Pod {
	return slices.MaxFunc(pods, func(a, b *corev1.Pod) int {
		if isReady(a) != isReady(b) {
			if isReady(b) {
				return 1
			}
			return -1
		}
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
}

// reconcileDeployment takes one step towards what d wants, and reports whether
// it did. A new template is rolled out with one pod too many and none too few.
func (t *control) reconcileDeployment(d *appsv1.Deployment) (bool, error) {
	hash := templateHash(&d.Spec.Template)
	f := t.fleetOf(d, hash)
	want, total := int(*d.Spec.Replicas), len(f.fresh)+len(f.stale)
	room := want
	if len(f.stale) > 0 {
		room++
	}
	switch {
	case len(f.fresh) < want && total < room:
		set := metav1.OwnerReference{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: d.Name + "-" + hash, UID: d.UID, Controller: new(true),
		}
		return true, t.begin(d, &d.Spec.Template, podIdentity{
			name:   set.Name + "-" + rand.String(5),
			owner:  set,
			labels: map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: hash},
		})
	case len(f.stale) > 0 && (f.ready > want || (total > want && f.ready-f.freshReady < len(f.stale))):
		t.terminate(victim(f.stale), -1)
		return true, nil
	case len(f.stale) == 0 && len(f.fresh) > want:
		t.terminate(victim(f.fresh), -1)
		return true, nil
	}
	now := d.DeepCopy()
	available := corev1.ConditionFalse
	if f.ready >= want {
		available = corev1.ConditionTrue
	}
	now.Status = appsv1.DeploymentStatus{
		ObservedGeneration:  d.Generation,
		Replicas:            int32(total),
		UpdatedReplicas:     int32(len(f.fresh)),
		ReadyReplicas:       int32(f.ready),
		AvailableReplicas:   int32(f.ready),
		UnavailableReplicas: int32(max(0, want-f.ready)),
		TerminatingReplicas: new(int32(len(f.leaving))),
		Conditions:          []appsv1.DeploymentCondition{{Type: appsv1.DeploymentAvailable, Status: available}},
	}
	t.c.store.Put("deployments", now)
	return false, nil
}

// reconcileStatefulSet takes one step: pods have fixed names, start in order,
// and are replaced from the last to the first, each when its predecessor of
// the same name is gone.
func (t *control) reconcileStatefulSet(s *appsv1.StatefulSet) (bool, error) {
	hash := templateHash(&s.Spec.Template)
	f := t.fleetOf(s, hash)
	want := int(*s.Spec.Replicas)
	now := s.DeepCopy()
	now.Status = appsv1.StatefulSetStatus{
		ObservedGeneration: s.Generation,
		Replicas:           int32(len(f.fresh) + len(f.stale) + len(f.leaving)),
		UpdatedReplicas:    int32(len(f.fresh)),
		CurrentReplicas:    int32(len(f.fresh)),
		ReadyReplicas:      int32(f.ready),
		AvailableReplicas:  int32(f.ready),
		CurrentRevision:    s.Name + "-" + hash,
		UpdateRevision:     s.Name + "-" + hash,
	}
	t.c.store.Put("statefulsets", now)

	pods := map[int]*corev1.Pod{}
	last := -1
	for _, p := range slices.Concat(f.fresh, f.stale, f.leaving) {
		i, _ := strconv.Atoi(p.Labels[appsv1.PodIndexLabel])
		pods[i] = p
		last = max(last, i)
	}
	for i := range want {
		p := pods[i]
		if p == nil {
			name := fmt.Sprintf("%s-%d", s.Name, i)
			return true, t.begin(s, &s.Spec.Template, podIdentity{
				name: name,
				owner: metav1.OwnerReference{
					APIVersion: "apps/v1", Kind: "StatefulSet", Name: s.Name, UID: s.UID, Controller: new(true),
				},
				labels: map[string]string{
					appsv1.StatefulSetRevisionLabel: s.Name + "-" + hash,
					appsv1.StatefulSetPodNameLabel:  name,
					appsv1.PodIndexLabel:            strconv.Itoa(i),
				},
			})
		}
		if s.Spec.PodManagementPolicy != appsv1.ParallelPodManagement && (p.DeletionTimestamp != nil || !isReady(p)) {
			return false, nil
		}
	}
	if len(f.leaving) > 0 {
		return false, nil
	}
	if last >= want {
		t.terminate(pods[last], -1)
		return true, nil
	}
	for i := last; i >= 0; i-- {
		if p := pods[i]; p != nil && slices.Contains(f.stale, p) {
			t.terminate(p, -1)
			return true, nil
		}
	}
	return false, nil
}

type podIdentity struct {
	name   string
	owner  metav1.OwnerReference
	labels map[string]string
}

// begin starts a pod of a workload.
func (t *control) begin(owner apiserver.Object, template *corev1.PodTemplateSpec, id podIdentity) error {
	app := t.appOf(owner)
	t.podIPs++
	ip := net.IPv4(10, 244, byte(t.podIPs>>8), byte(t.podIPs)).String()
	now := metav1.Now().Rfc3339Copy()
	p := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	p.Namespace, p.Name, p.UID = owner.GetNamespace(), id.name, apiserver.NewUID()
	p.OwnerReferences = []metav1.OwnerReference{id.owner}
	for name, value := range id.labels {
		metav1.SetMetaDataLabel(&p.ObjectMeta, name, value)
	}
	p.Spec.NodeName = node.Name
	if s, ok := owner.(*appsv1.StatefulSet); ok {
		p.Spec.Hostname, p.Spec.Subdomain = p.Name, s.Spec.ServiceName
	}
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now,
		HostIP: node.IP, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now},
		},
	}
	setReady(p, false)
	program := node.Program(p.Name)
	maps.Copy(program, app.Handlers)
	if err := t.c.node.StartPod(apiserver.KeyOf(p), p.UID, program); err != nil {
		return err
	}
	if err := t.put(p); err != nil {
		return err
	}
	t.c.log.Info("pod started", "namespace", p.Namespace, "pod", p.Name)
	ready := func() error {
		t.setReady(p, true)
		return nil
	}
	if app.StartDelay <= 0 {
		return ready()
	}
	t.after(app.StartDelay, ready)
	return nil
}

// setReady changes the readiness of that very pod, if it is still there.
func (t *control) setReady(p *corev1.Pod, ready bool) {
	now, _ := t.c.store.Get("pods", p.Namespace, p.Name).(*corev1.Pod)
	if now == nil || now.UID != p.UID || isReady(now) == ready {
		return
	}
	now = now.DeepCopy()
	setReady(now, ready)
	t.c.store.Put("pods", now)
}

// terminate tells a pod to stop. It serves on for that long, or for its app's
// Grace if that is negative; with none it is killed. It returns the pod as it
// is then.
func (t *control) terminate(p *corev1.Pod, grace time.Duration) *corev1.Pod {
	switch {
	case grace == 0:
		t.end(p, node.Lost)
		return p
	case grace < 0:
		grace = t.appOf(p).Grace
	}
	if p.DeletionTimestamp == nil {
		p = p.DeepCopy()
		deadline := metav1.NewTime(time.Now().Add(grace)).Rfc3339Copy()
		p.DeletionTimestamp = &deadline
		p.DeletionGracePeriodSeconds = new(int64(grace / time.Second))
		t.c.store.Put("pods", p)
		t.c.log.Info("pod stopping", "namespace", p.Namespace, "pod", p.Name, "grace", grace)
	}
	t.after(grace, func() error {
		t.end(p, node.Ended)
		return nil
	})
	return p
}

// end stops a pod's program and removes the pod.
func (t *control) end(p *corev1.Pod, why node.Reason) {
	t.c.node.StopPod(p.UID, why)
	if now := t.c.store.Get("pods", p.Namespace, p.Name); now != nil && now.GetUID() == p.UID {
		t.c.store.Remove("pods", apiserver.KeyOf(p))
		t.c.log.Info("pod gone", "namespace", p.Namespace, "pod", p.Name)
	}
}

// endAll kills pods.
func (t *control) endAll(namespace string, doomed func(apiserver.Object) bool) {
	pods, _ := t.c.store.List("pods", namespace, doomed)
	for _, p := range pods {
		t.end(p.(*corev1.Pod), node.Lost)
	}
}

// appOf returns the app that a workload or a workload's pod belongs to.
func (t *control) appOf(o apiserver.Object) App {
	for w, a := range t.apps {
		owner := t.c.store.Get(w.resource, w.key.Namespace, w.key.Name)
		if owner != nil && (owner.GetUID() == o.GetUID() || ownedBy(owner)(o)) {
			return a
		}
	}
	return App{}
}

// ownedBy selects the pods of a workload. The ReplicaSets that stand between a
// Deployment and its pods in real clusters are not modelled; they would have
// the Deployment's uid.
func ownedBy(owner apiserver.Object) func(apiserver.Object) bool {
	return func(o apiserver.Object) bool {
		ref := metav1.GetControllerOf(o)
		return ref != nil && ref.UID == owner.GetUID()
	}
}

func revisionOf(p *corev1.Pod) string {
	if hash := p.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; hash != "" {
		return hash
	}
	revision := p.Labels[appsv1.StatefulSetRevisionLabel]
	if ref := metav1.GetControllerOf(p); ref != nil && len(revision) > len(ref.Name) {
		return revision[len(ref.Name)+1:]
	}
	return ""
}

func templateHash(t *corev1.PodTemplateSpec) string {
	h := fnv.New32a()
	json.NewEncoder(h).Encode(t)
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// setReady writes a pod's readiness where it appears.
func setReady(p *corev1.Pod, ready bool) {
	status, now := corev1.ConditionFalse, metav1.Now().Rfc3339Copy()
	if ready {
		status = corev1.ConditionTrue
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodReady, corev1.ContainersReady} {
		p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: kind, Status: status, LastTransitionTime: now})
	}
	p.Status.ContainerStatuses = nil
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: ready, Started: new(true),
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
	}
}

// setDefaults does what the API server does to an object that is created, or
// that replaces old.
func (t *control) setDefaults(o, old apiserver.Object) {
	switch o := o.(type) {
	case *corev1.Namespace:
		metav1.SetMetaDataLabel(&o.ObjectMeta, corev1.LabelMetadataName, o.Name)
		o.Status.Phase = corev1.NamespaceActive
	case *corev1.Service:
		before, _ := old.(*corev1.Service)
		t.setServiceDefaults(o, before)
	case *appsv1.Deployment:
		o.Generation = 1
		if o.Spec.Replicas == nil {
			o.Spec.Replicas = new(int32(1))
		}
		o.Spec.Strategy.Type = cmp.Or(o.Spec.Strategy.Type, appsv1.RollingUpdateDeploymentStrategyType)
		if before, ok := old.(*appsv1.Deployment); ok {
			o.Status = before.Status
			o.Generation = generation(before, equality.Semantic.DeepEqual(before.Spec, o.Spec))
		}
	case *appsv1.StatefulSet:
		o.Generation = 1
		if o.Spec.Replicas == nil {
			o.Spec.Replicas = new(int32(1))
		}
		o.Spec.UpdateStrategy.Type = cmp.Or(o.Spec.UpdateStrategy.Type, appsv1.RollingUpdateStatefulSetStrategyType)
		if before, ok := old.(*appsv1.StatefulSet); ok {
			o.Status = before.Status
			o.Generation = generation(before, equality.Semantic.DeepEqual(before.Spec, o.Spec))
		}
	}
}

func generation(before apiserver.Object, same bool) int64 {
	if same {
		return before.GetGeneration()
	}
	return before.GetGeneration() + 1
}

func (t *control) setServiceDefaults(s, before *corev1.Service) {
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeClusterIP
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	switch {
	case s.Spec.ClusterIP != "":
	case before != nil:
		s.Spec.ClusterIP = before.Spec.ClusterIP
	default:
		t.serviceIPs++
		s.Spec.ClusterIP = net.IPv4(10, 96, byte(t.serviceIPs>>8), byte(t.serviceIPs)).String()
	}
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
}

// DeletePod deletes a pod. With grace it is told to stop and serves on for
// that long, or for its app's Grace if that is negative; then it is gone. Without
// grace it is killed with all its connections. Its workload starts another.
func (c *Cluster) DeletePod(namespace, name string, grace time.Duration) error {
	_, err := c.control.DeletePod(namespace, name, grace)
	return err
}

// SetReady makes a pod ready or unready, as its readiness probe would.
func (c *Cluster) SetReady(namespace, name string, ready bool) error {
	return c.control.do(func() error {
		p, ok := c.store.Get("pods", namespace, name).(*corev1.Pod)
		if !ok {
			return apierrors.NewNotFound(corev1.Resource("pods"), name)
		}
		c.control.setReady(p, ready)
		return nil
	})
}
