// Package otscontainer starts a Tablestore emulator for tests with
// testcontainers-go: in a container if there is a container engine, otherwise
// in the test's own process. Tests use the same methods to get its addresses in
// both cases.
//
//	e, err := otscontainer.Start(ctx, otscontainer.Config{Instance: "test"})
//	if err != nil { … }
//	defer e.Close()
//	client := tablestore.NewClient(e.Endpoint(), "test", "any id", "any secret")
//
// The container's image is built when it is needed, from a static binary that
// the go command builds from the emulator's version in the test's go.mod;
// nothing is pulled. If your tests do not need a separate process, package
// emulator is simpler.
package otscontainer
