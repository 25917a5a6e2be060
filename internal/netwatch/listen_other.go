//go:build !linux && !darwin

package netwatch

import "context"

func listen(ctx context.Context, event func()) error { return poll(ctx, event) }
