// A gRPC server that does nothing: each message comes back as it came, unparsed. What gRPC itself costs in C++.
//
//     echo PORT
//
// One completion queue with one thread, and message, status and trailers in one operation: of the ways that gRPC's
// C++ offers (callbacks, one or two queues, separate operations) this answers most requests a second on two cores.
// A call of ModelStreamInfer goes on until its client ends it.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <iostream>
#include <memory>
#include <string>

namespace {

constexpr int kWaitingCalls = 64;
constexpr int kMaxMessageBytes = 64 << 20;
const char kStreaming[] = "/inference.GRPCInferenceService/ModelStreamInfer";

class Call {
 public:
  Call(grpc::AsyncGenericService* service, grpc::ServerCompletionQueue* queue)
      : service_(service), queue_(queue), stream_(&context_) {
    service_->RequestCall(&context_, &stream_, queue_, queue_, this);
  }

  // What was asked for last is done, or cannot be.
  void Proceed(bool ok) {
    switch (state_) {
      case State::kAccept:
        if (!ok) {
          delete this;
          return;
        }
        new Call(service_, queue_);
        streaming_ = context_.method() == kStreaming;
        Read();
        return;
      case State::kRead:
        if (!ok) {
          Finish();
        } else if (streaming_) {
          state_ = State::kWrite;
          stream_.Write(message_, this);
        } else {
          state_ = State::kFinish;
          stream_.WriteAndFinish(message_, grpc::WriteOptions(), grpc::Status::OK, this);
        }
        return;
      case State::kWrite:
        if (ok) {
          Read();
        } else {
          Finish();
        }
        return;
      case State::kFinish:
        delete this;
        return;
    }
  }

 private:
  enum class State { kAccept, kRead, kWrite, kFinish };

  void Read() {
    state_ = State::kRead;
    stream_.Read(&message_, this);
  }

  void Finish() {
    state_ = State::kFinish;
    stream_.Finish(grpc::Status::OK, this);
  }

  grpc::AsyncGenericService* service_;
  grpc::ServerCompletionQueue* queue_;
  bool streaming_ = false;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_;
  grpc::ByteBuffer message_;
  State state_ = State::kAccept;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: echo PORT" << std::endl;
    return 2;
  }
  grpc::AsyncGenericService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + argv[1], grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.RegisterAsyncGenericService(&service);
  std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    std::cerr << "cannot listen on loopback" << std::endl;
    return 1;
  }
  for (int number = 0; number < kWaitingCalls; ++number) {
    new Call(&service, queue.get());
  }
  void* call;
  bool ok;
  while (queue->Next(&call, &ok)) {
    static_cast<Call*>(call)->Proceed(ok);
  }
}
