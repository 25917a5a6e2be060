package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseOther(t *testing.T) {
	got, err := parseOther("kubefwd,echo=127.1.27.1:9000,source=127.1.27.1:9001,http=127.1.27.2:8000,pid=7")
	if err != nil {
		t.Fatal(err)
	}
	want := addresses{
		echo: "127.1.27.1:9000", source: "127.1.27.1:9001",
		http: "127.1.27.2:8000", raw: "127.1.27.2:8000", host: "127.1.27.2:8000",
	}
	if got.name != "kubefwd" || got.at.addresses != want {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff([]int{7}, got.at.pids); diff != "" {
		t.Errorf("processes, -want +got:\n%s", diff)
	}
	for _, text := range []string{"kubefwd", "kubefwd,port=1", "kubefwd,pid=x", "kubefwd,echo"} {
		if _, err := parseOther(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
