//go:build !linux

package main

import (
	"context"
	"errors"

	"github.com/tunneld/tunneld/internal/invoker"
)

const (
	needsRoot = false
	lockPath  = "tunneld-install.lock"
)

func stepNames() []string { return nil }

func installed() ([]string, error) { return nil, nil }

func (i *installation) site(context.Context, invoker.User, bool) (*site, error) {
	return nil, errors.New("not on this system")
}
