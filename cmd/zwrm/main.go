// Command zwrm deploys, scales and destroys microVMs by asking zwrmd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"zwrm/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr, os.Getenv)
	stop()
	os.Exit(status)
}
