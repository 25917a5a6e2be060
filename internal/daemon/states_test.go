package daemon_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tunneld/tunneld/internal/await"
	"github.com/tunneld/tunneld/internal/demo"
	"github.com/tunneld/tunneld/internal/kube"
	"github.com/tunneld/tunneld/internal/status"
)

// patient makes everything quick, but gives a slow network time to answer.
var patient = kube.Timing{
	InUse: 150 * time.Millisecond, Watch: 20 * time.Millisecond, Quiet: 50 * time.Millisecond, Answer: 10 * time.Second,
	Ping: 50 * time.Millisecond, Pong: 10 * time.Second,
	Retry: 10 * time.Millisecond, RetryInUse: 50 * time.Millisecond, RetryIdle: 50 * time.Millisecond, RetryDenied: 50 * time.Millisecond,
}

// A bench is a daemon with one forward, to Service task-tcp's port 9000, whose
// state the levers change.
type bench struct {
	*harness
	t       *testing.T
	addr    string // of the raw port
	fixture string // the forward in the configuration
	held    net.Conn
	undo    []func()
	opening sync.WaitGroup
}

const forwardName = "tcp"

// A lever brings about a state. The cause and the hint of a state that needs
// them are checked wherever it is seen.
type lever struct {
	state status.State
	// pull makes it hold; release makes it hold no more.
	pull, release func(b *bench)
	// forgets: what was learnt about pods before is forgotten with it.
	forgets bool
	// hides: what the API server would say is not known meanwhile.
	hides bool
	// said: it is the API server that says so.
	said bool
	// ready, if set, is done while another state still holds: pull follows when
	// that was released. States without it can hold beneath another one.
	ready func(b *bench)
}

var levers = []lever{
	{state: status.Failed, forgets: true,
		pull:    func(b *bench) { b.reconfigure(`contexts: {deny: ["*"]}`) },
		release: func(b *bench) { b.reconfigure("contexts: {deny: []}") },
	},
	{state: status.NeedsLogin, forgets: true, said: true,
		pull: func(b *bench) {
			b.ExpireTokens()
			b.use() // the API server is asked for something
		},
		release: func(b *bench) {
			b.IssueToken(demo.DefaultUser)
			b.writeKubeconfig(b.t)
			b.Reload(b.t.Context())
		},
	},
	{state: status.Forbidden, said: true,
		pull: func(b *bench) {
			b.undo = append(b.undo, b.Forbid(demo.Rule{Verb: "*", Resource: "services"}))
			b.CutWatches()
		},
		release: func(b *bench) { b.undoAll() },
	},
	{state: status.Offline, hides: true,
		pull:    func(b *bench) { b.StopAPI() },
		release: func(b *bench) { b.must(b.StartAPI()) },
	},
	{state: status.NotFound,
		pull: func(b *bench) {
			b.must(b.Delete(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "task-tcp"}}))
		},
		release: func(b *bench) {
			b.must(b.Apply(&corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "task-api", Name: "task-tcp"},
				Spec: corev1.ServiceSpec{
					Selector: map[string]string{"app": "task-api"},
					Ports:    []corev1.ServicePort{{Name: "tcp-echo", Port: 9000}},
				},
			}))
		},
	},
	{state: status.NoEndpoints, forgets: true,
		pull:    func(b *bench) { b.must(b.Scale("task-api", "task-api", 0)) },
		release: func(b *bench) { b.must(b.Scale("task-api", "task-api", 2)) },
	},
	{state: status.Degraded,
		pull: func(b *bench) {
			for _, pod := range b.Pods("task-api", "task-api") {
				undo, err := b.RefusePort("task-api", pod, 9000)
				b.must(err)
				b.undo = append(b.undo, undo)
			}
			c := b.dial()
			defer c.Close()
			if _, err := c.Read(make([]byte, 1)); err == nil {
				b.t.Error("a port that is refused echoes")
			}
		},
		// The pods that refuse are replaced by others.
		release: func(b *bench) {
			b.undo = nil
			for _, pod := range b.Pods("task-api", "task-api") {
				b.must(b.DeletePod("task-api", pod, 0))
			}
		},
	},
	{state: status.Connecting,
		ready: func(b *bench) { b.Delay(150 * time.Millisecond) },
		pull: func(b *bench) {
			b.letGo()
			b.KillUpgrades("", "")
			b.awaitState(b.t, forwardName, status.Idle) // it is seen
			b.hold()
		},
		release: func(b *bench) { b.Delay(0) },
	},
	{state: status.Ready,
		ready:   func(b *bench) {},
		pull:    func(b *bench) { b.hold() },
		release: func(b *bench) { b.letGo() },
	},
	{state: status.Idle,
		ready:   func(b *bench) {},
		pull:    func(b *bench) { b.letGo() },
		release: func(b *bench) {},
	},
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) undoAll() {
	for _, undo := range b.undo {
		undo()
	}
	b.undo = nil
}

// reconfigure rewrites the configuration with other settings.
func (b *bench) reconfigure(settings string) {
	b.configure(b.t, settings+"\n"+b.fixture, forwardFlow)
}

// hold opens a connection and keeps it; it may take its time to get through.
func (b *bench) hold() {
	b.letGo()
	b.held = b.dial()
	io.WriteString(b.held, "x")
}

// dial connects as soon as the forward listens.
func (b *bench) dial() (c net.Conn) {
	await.Until(b.t, "the forward to listen", func() bool {
		var err error
		c, err = net.Dial("tcp", b.addr)
		return err == nil
	})
	return c
}

func (b *bench) letGo() {
	if b.held != nil {
		b.held.Close()
		b.held = nil
	}
}

// use opens a connection that may well fail.
func (b *bench) use() {
	b.opening.Go(func() { echo(b.addr) })
}

// await waits for a state, and looks at how it is explained.
func (b *bench) await(want status.State) {
	b.t.Helper()
	f := b.awaitState(b.t, forwardName, want)
	needsCause := want != status.Ready && want != status.Idle
	needsHint := needsCause && want != status.Connecting
	if (f.Cause != "") != needsCause || (f.Hint != "") != needsHint {
		b.t.Errorf("%s has cause %q and hint %q", want, f.Cause, f.Hint)
	}
	if f.Since.IsZero() {
		b.t.Errorf("%s has no beginning", want)
	}
}

const forwardFlow = "name: tcp, target: task-tcp, ports: [9000], http: none"

func newBench(t *testing.T) *bench {
	b := &bench{t: t, fixture: "addresses: " + nextRange()}
	b.harness = newHarness(t, patient)
	b.reconfigure("")
	b.must(b.Reload(t.Context()))
	t.Cleanup(func() {
		b.letGo()
		b.stop()
		b.opening.Wait()
	})
	b.await(status.Idle)
	b.addr = b.forward(t, forwardName).Ports[0].Listen
	return b
}

// transition brings about the transition from one lever's state to another's.
func (b *bench) transition(from, to lever) {
	order := status.States()
	beneath := to.ready == nil && from.ready == nil && !from.forgets && !to.hides &&
		slices.Index(order, to.state) > slices.Index(order, from.state)
	if beneath { // it is there already when the other one goes
		to.pull(b)
		b.await(to.state)
	}
	if from.ready != nil {
		from.ready(b)
	}
	from.pull(b)
	b.await(from.state)
	switch {
	case beneath:
		from.release(b)
	case to.ready != nil:
		to.ready(b)
		from.release(b)
		to.pull(b)
	case from.hides && to.said:
		to.pull(b)
		from.release(b)
	case from.forgets || from.ready != nil && to.state == status.Degraded:
		from.release(b)
		await.Until(b.t, "the forward to be usable", func() bool { return b.forward(b.t, forwardName).State.Usable() })
		to.pull(b)
	default:
		to.pull(b)
	}
	b.await(to.state)
}

// Every state can follow every other one, and is told with its cause.
func TestEveryTransition(t *testing.T) {
	for _, from := range levers {
		for _, to := range levers {
			if from.state == to.state {
				continue
			}
			t.Run(fmt.Sprintf("%s to %s", from.state, to.state), func(t *testing.T) {
				t.Parallel()
				newBench(t).transition(from, to)
			})
		}
	}
}
