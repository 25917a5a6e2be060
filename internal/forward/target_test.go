package forward_test

import (
	"testing"

	"github.com/tunneld/tunneld/internal/forward"
)

func TestParseRef(t *testing.T) {
	tests := []struct {
		ref  string
		kind forward.Kind
		name string
		bad  bool
	}{
		{ref: "task-api", kind: forward.Service, name: "task-api"},
		{ref: "svc/task-api", kind: forward.Service, name: "task-api"},
		{ref: "Service/task-api", kind: forward.Service, name: "task-api"},
		{ref: "deploy/web", kind: forward.Deployment, name: "web"},
		{ref: "deployments.apps/web", kind: forward.Deployment, name: "web"},
		{ref: "sts/db", kind: forward.StatefulSet, name: "db"},
		{ref: "po/db-0", kind: forward.Pod, name: "db-0"},
		{ref: "", bad: true},
		{ref: "/", bad: true},
		{ref: "svc/", bad: true},
		{ref: "svc/a/b", bad: true},
		{ref: "daemonset/x", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.ref, func(t *testing.T) {
			kind, name, err := forward.ParseRef(tt.ref)
			if kind != tt.kind || name != tt.name || (err != nil) != tt.bad {
				t.Errorf("ParseRef(%q) = %q, %q, %v", tt.ref, kind, name, err)
			}
		})
	}
}
