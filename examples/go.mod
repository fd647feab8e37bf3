module github.com/watermill-ots/watermill-ots/examples

go 1.25.0

require github.com/watermill-ots/watermill-ots v0.0.0

replace github.com/watermill-ots/watermill-ots => ../
