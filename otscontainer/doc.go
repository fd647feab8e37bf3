// Package otscontainer starts an emulator of Tablestore for tests with
// testcontainers-go: in a container if a container engine is available, else in the
// test's own process. Tests use it the same way in both cases.
//
//	e, err := otscontainer.Start(ctx, otscontainer.Config{Instance: "test"})
//	if err != nil { … }
//	defer e.Close()
//	client := tablestore.NewClient(e.Endpoint(), "test", "any id", "any secret")
//
// The container's image is built when it is needed, from a static binary that the
// go command builds from the emulator's version in the test's go.mod; nothing is
// pulled. A test that does not need a separate process can use package emulator
// directly, which is simpler.
package otscontainer
