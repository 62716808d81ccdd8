package signup;

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** The vendor's part, as the simulator (tests/simulator) plays it. */
class Vendor implements AutoCloseable {
  final HttpClient client = HttpClient.newHttpClient();
  final URI control = URI.create(System.getenv("SIMULATOR"));
  Thread later;

  String ask(String path, String body) throws Exception {
    HttpRequest.Builder request = HttpRequest.newBuilder(control.resolve(path));
    if (body != null) request.POST(HttpRequest.BodyPublishers.ofString(body));
    return client.send(request.build(), HttpResponse.BodyHandlers.ofString()).body().trim();
  }

  void hold() throws Exception {
    ask("/fault", "{\"kind\":\"hold\",\"vendor\":\"ideamart\",\"operation\":\"send\",\"times\":1}");
  }

  void release() throws Exception {
    ask("/release", "{}");
  }

  void releaseAfter(int milliseconds) {
    later =
        new Thread(
            () -> {
              try {
                Thread.sleep(milliseconds);
                release();
              } catch (Exception error) {
                throw new AssertionError(error);
              }
            });
    later.start();
  }

  String count(String phone) throws Exception {
    return ask("/count?vendor=ideamart&operation=send&recipient=" + phone, null);
  }

  @Override
  public void close() throws Exception {
    if (later != null) later.join();
    release();
  }
}
