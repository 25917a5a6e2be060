package kube

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A verb that is refused stays so until that verb is allowed; only a watch that
// works needs no list.
func TestMirrorRefusals(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("services"), "", errors.New("no"))
	type step struct {
		verb    string
		err     error
		refused bool // afterwards
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"may list, not watch", []step{{"list", nil, false}, {"watch", forbidden, true}, {"list", nil, true}, {"watch", forbidden, true}}},
		{"may watch, not list", []step{{"list", forbidden, true}, {"watch", nil, false}}},
		{"was allowed to list", []step{{"list", forbidden, true}, {"list", nil, false}}},
		{"was allowed to watch", []step{{"list", nil, false}, {"watch", forbidden, true}, {"list", nil, true}, {"watch", nil, false}}},
		{"another failure says nothing", []step{{"list", forbidden, true}, {"list", errors.New("timeout"), true}, {"watch", errors.New("timeout"), true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changes := 0
			m := newMirror(Timing{}, "ns", "services", nil, &corev1.Service{}, nil, nil, func() { changes++ })
			was, want := false, 0
			for i, s := range tt.steps {
				if s.verb == "list" {
					m.noteList(s.err)
				} else {
					m.noteWatch(s.err)
				}
				if refused := m.refusal() != nil; refused != s.refused {
					t.Errorf("step %d: refused = %v; want %v", i, refused, s.refused)
				}
				if s.refused != was {
					was = s.refused
					want++
				}
			}
			if changes != want {
				t.Errorf("%d changes; want %d", changes, want)
			}
		})
	}
}
